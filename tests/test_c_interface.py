"""How tensors reach the compiled kernels."""

from ctypes import c_float, c_int, c_int64, c_void_p

import torch

from liftplace._c_interface import argument_types, c_pointer, c_tensor


def test_a_letter_is_an_argument_and_a_tensor_two():
    assert argument_types("t p lif") == [c_void_p, c_int, c_void_p, c_int64, c_int, c_float]
    assert argument_types("") == []


def test_tensors():
    x = torch.zeros(3, dtype=torch.float16)
    assert c_tensor(x) == (x.data_ptr(), 2) and len(c_tensor(x)) == len(argument_types("t"))
    assert c_pointer(x) == x.data_ptr() and c_pointer(None) is None
