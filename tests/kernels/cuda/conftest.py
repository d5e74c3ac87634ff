"""The op on the device of a test: compiled by nvcc on CUDA tensors, emulated on CPU tensors."""

import ctypes

import pytest

from .harness import compile_emulation, emulated


@pytest.fixture(scope="session")
def emulation(tmp_path_factory) -> ctypes.CDLL:
    """The kernels' sources compiled for the CPU, once."""
    out = tmp_path_factory.mktemp("emulation") / "kernels.so"
    return ctypes.CDLL(str(compile_emulation(out, "-O1")))


@pytest.fixture
def device(device, request, monkeypatch):
    """As everywhere; on "cpu" the op runs emulated for the length of the test."""
    if device == "cuda":
        yield device
        return
    with emulated(monkeypatch, request.getfixturevalue("emulation")):
        yield device
