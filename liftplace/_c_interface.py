"""How tensors and numbers reach the compiled kernels, which are plain C functions for ctypes."""

from ctypes import c_float, c_int, c_int64, c_void_p

import torch
from torch import Tensor

C_DTYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}
_TYPES = {
    "t": (c_void_p, c_int),  # a tensor: its data and its dtype
    "p": (c_void_p,),
    "l": (c_int64,),
    "i": (c_int,),
    "f": (c_float,),
}


def argument_types(letters: str) -> list:
    """ctypes of a function's arguments, a letter each; spaces may group them."""
    return [ctype for letter in letters.replace(" ", "") for ctype in _TYPES[letter]]


def c_tensor(x: Tensor) -> tuple[int, int]:
    """The two arguments of a "t"."""
    return x.data_ptr(), C_DTYPES[x.dtype]


def c_pointer(x: Tensor | None) -> int | None:
    return None if x is None else x.data_ptr()
