"""Forward and backward of the op in one call, on a GPU or on the emulation, against float64."""

import ctypes
import shutil
import subprocess
from contextlib import contextmanager
from pathlib import Path

import pytest
from torch import Tensor

from liftplace.kernels.cuda import build, op
from liftplace.kernels.cuda.launch import place_launch
from tests.kernels import harness
from tests.kernels.harness import Run

EMULATION = Path(__file__).parent / "emulation"
SM_80 = 163 * 1024


def compile_emulation(out: Path, *flags: str) -> Path:
    """The kernels' sources as they stand, compiled by g++ to run on the CPU; skips without g++."""
    if shutil.which("g++") is None:
        pytest.skip("there is no g++ here")
    sources = [build.FOLDER / name for name in build.SOURCES] + [EMULATION / "emulation.cpp"]
    warnings = ["-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas"]
    command = ["g++", "-std=c++17", "-shared", "-fPIC", *warnings, *flags, f"-I{EMULATION}"]
    subprocess.run([*command, "-x", "c++", *map(str, sources), "-o", str(out)], check=True)
    return out


@contextmanager
def emulated(monkeypatch, library: ctypes.CDLL, seed: int = 0, **limits):
    """The op on CPU tensors, its launchers from `library`; `limits` go to `place_launch`."""
    with monkeypatch.context() as patch:
        library.emulation_seed(ctypes.c_uint64(seed))
        patch.setattr(op, "_library", lambda device: op.declare(library))
        patch.setattr(op, "_stream", lambda device: 0)
        patch.setattr(op, "_max_shared", lambda device: SM_80)
        if limits:
            patch.setattr(op, "place_launch", lambda *size: place_launch(*size, **limits))
        yield


def run(student: Tensor, teacher: Tensor, size=None, *, weight="adaptive", **options) -> Run:
    """LIFT (no `size`) or PLACE on (rows, n) tensors."""
    return harness.run(op, student, teacher, size, weight=weight, **options)


def assert_agrees(student: Tensor, teacher: Tensor, size=None, **options) -> Run:
    """As `harness.check`."""
    return harness.check(run(student, teacher, size, **options), student, teacher, size, **options)
