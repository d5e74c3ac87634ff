"""Forward and backward of the op in one call, on a GPU or on the emulation, against float64."""

import ctypes
import shutil
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from liftplace._closed_form import group_number
from liftplace.kernels.cuda import build, op
from liftplace.kernels.cuda.launch import place_launch
from tests import oracle as spec
from tests.kernels.harness import DTYPES, RELATIVE, close, group_numbers, pair

__all__ = ["DTYPES", "Run", "assert_agrees", "compile_emulation", "emulated",
           "group_numbers", "pair", "run"]  # fmt: skip

EMULATION = Path(__file__).parent / "emulation"
SM_80 = 163 * 1024


class Run(NamedTuple):
    """What the op gave; group is the decoded number, or None for one group a row."""

    loss: Tensor
    group: Tensor | None
    coef: Tensor
    terms: Tensor
    grad: Tensor


def compile_emulation(out: Path, *flags: str) -> Path:
    """The kernels' sources as they stand, compiled by g++ to run on the CPU; skips without g++."""
    if shutil.which("g++") is None:
        pytest.skip("there is no g++ here")
    sources = [build.FOLDER / name for name in build.SOURCES] + [EMULATION / "emulation.cpp"]
    command = ["g++", "-std=c++17", "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror",
               "-Wno-unknown-pragmas", *flags, f"-I{EMULATION}", "-x", "c++"]  # fmt: skip
    subprocess.run([*command, *map(str, sources), "-o", str(out)], check=True)
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


def run(student: Tensor, teacher: Tensor, size: int | None = None, *, norm="l1", terms="both",
        weight="adaptive", eps=1e-7, scale=1, grad_out=1.0, with_groups=True) -> Run:  # fmt: skip
    """LIFT (no `size`) or PLACE on (rows, n) tensors; `weight`: "adaptive", a number, a tensor."""
    wanted = {"with_coarse": terms != "fine", "with_fine": terms != "coarse"}
    given = weight if isinstance(weight, Tensor) else None
    fixed = weight if isinstance(weight, float) else 1.0 if terms == "fine" else None
    size = student.shape[1] if size is None else size
    loss, group, coef, values = op.forward(
        student, teacher, given, None if given is not None else fixed, size, eps, norm == "l2",
        *wanted.values(), scale, with_groups,
    )  # fmt: skip
    grad_out = torch.tensor(grad_out, device=student.device)
    grad = op.backward(
        student, teacher, group, coef, values, grad_out, scale, *wanted.values()
    ) if with_groups else torch.empty(0)  # fmt: skip
    return Run(loss, group_number(group) if group.numel() else None, coef, values, grad)


def assert_agrees(student: Tensor, teacher: Tensor, size: int | None = None, *, grad_out=1.0,
                  weight="adaptive", **options) -> Run:  # fmt: skip
    """Loss, terms, slopes and gradient agree with the float64 oracle, group numbers exactly."""
    actual = run(student, teacher, size, grad_out=grad_out, weight=weight, **options)
    grouping = {"num_groups": 1} if size is None else {"group_size": size}
    weight = weight.item() if isinstance(weight, Tensor) else weight
    expected = spec.oracle(student[None], teacher[None], **grouping, weight=weight, **options)
    coarse, fine, _, w = actual.terms
    close("loss", actual.loss, expected.loss, RELATIVE, expected.loss_error)
    close("coarse", coarse, expected.fit.coarse, RELATIVE, expected.coarse_error)
    close("fine", fine, expected.fit.fine, RELATIVE, expected.fine_error)
    close("weight", w, expected.fit.weight, RELATIVE, expected.weight_error)
    close("slope", actual.coef[0], expected.fit.slope, RELATIVE, expected.slope_error)
    smallest = 6e-8 if student.dtype == torch.float16 else 0.0  # float16 has no smaller number
    rounding = expected.grad_error[0] * abs(grad_out) + smallest
    relative = spec.GRAD_TOLERANCE[student.dtype]
    assert actual.grad.dtype == student.dtype
    close("gradient", actual.grad, expected.grad[0] * grad_out, relative, rounding)
    if actual.group is not None:
        assert torch.equal(actual.group, group_numbers(student, teacher, size))
    return actual
