"""bfloat16 and float16 are read and written as PyTorch does."""

import ctypes
from pathlib import Path

import pytest
import torch

from .compiler import build

DTYPES = [torch.bfloat16, torch.float16]


@pytest.fixture(scope="module")
def convert(tmp_path_factory):
    """convert(name, tensor, dtype): the function of conversions.cpp on every entry."""
    out = tmp_path_factory.mktemp("conversions") / "conversions.so"
    library = ctypes.CDLL(
        build(Path(__file__).parent / "conversions.cpp", out, "-O3", "-fPIC", "-shared")
    )

    def call(name, x, dtype):
        result = torch.empty_like(x, dtype=dtype)
        pointers = (ctypes.c_void_p(tensor.data_ptr()) for tensor in (x, result))
        getattr(library, name)(*pointers, ctypes.c_long(x.numel()))
        return result

    return call


def _bits(x):
    """Bit patterns, each NaN the same one."""
    integer = torch.int32 if x.dtype == torch.float32 else torch.int16
    return torch.where(x.isnan(), torch.full_like(x, float("nan")), x).view(integer)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_number_is_read(dtype, convert):
    x = torch.arange(1 << 16, dtype=torch.int32).to(torch.int16).view(dtype)
    name = str(dtype).removeprefix("torch.")
    assert torch.equal(_bits(convert(f"load_{name}", x, torch.float32)), _bits(x.float()))


@pytest.mark.parametrize("dtype", DTYPES)
def test_numbers_are_rounded_to_nearest_even(dtype, convert):
    """Random bit patterns, every number of the dtype, every middle between two, and their sides."""
    every = torch.arange(1 << 16, dtype=torch.int32).to(torch.int16).view(dtype).float()
    middle = ((every[:-1].double() + every[1:].double()) / 2).float()
    up, down = (torch.nextafter(middle, torch.tensor(to)) for to in (torch.inf, -torch.inf))
    random = torch.randint(-(1 << 31), 1 << 31, (1 << 20,)).to(torch.int32).view(torch.float32)
    x = torch.cat([every, middle, up, down, random])
    name = str(dtype).removeprefix("torch.")
    assert torch.equal(_bits(convert(f"store_{name}", x, dtype)), _bits(x.to(dtype)))
