"""The sorted order of rows against a stable sort of the float32 errors."""

import pytest
import torch

from liftplace.kernels.fused.launch import place_launch
from liftplace.kernels.fused.sorting import sort_rows
from tests.kernels.harness import DTYPES, pair, sorted_order

from .harness import few_programs

# Small chunks and fan-ins, so that a short row passes through several rounds.
ROUNDS = {
    "one chunk": {"chunk": 128},
    "one round": {"chunk": 32, "fan_in": 4},
    "two rounds": {"chunk": 16, "fan_in": 4},
    "four rounds": {"chunk": 8, "fan_in": 2},
}


def assert_sorts(student, teacher, **choices):
    launch = place_launch(*student.shape, 1, max_block=1, **choices).sort
    order = sort_rows(student, teacher, launch)
    assert order.dtype == torch.int32
    assert torch.equal(order.long(), sorted_order(student, teacher))


def _inputs(kind: str, rows: int, n: int, device: str):
    student, teacher = pair(rows, n, device)
    if kind == "all equal":
        teacher = student.round() + 1.0
        student = student.round()
    elif kind == "half tied":
        teacher[:, ::2] = student[:, ::2]
    elif kind == "few values":
        student, teacher = student.round(), teacher.round()
    elif kind == "heavy tails":
        teacher = student + torch.randn_like(student) / torch.randn_like(student).abs() ** 3
    elif kind == "underflow":
        student = student * 1e-21
        teacher = teacher * 1e-21
    elif kind == "not finite":
        teacher[:, 5:40:3] = float("inf")
        teacher[:, 7:40:4] = float("nan")
    return student, teacher


KINDS = ["noise", "all equal", "half tied", "few values", "heavy tails", "underflow", "not finite"]


@pytest.mark.parametrize("kind", KINDS)
def test_distributions(kind, device):
    for rounds in ("one chunk", "one round"):
        assert_sorts(*_inputs(kind, 1, 101, device), **ROUNDS[rounds])


@pytest.mark.parametrize("rounds", list(ROUNDS))
def test_rounds(rounds, device):
    assert_sorts(*_inputs("half tied", 1, 101, device), **ROUNDS[rounds])


@pytest.mark.parametrize("student_dtype", DTYPES)
@pytest.mark.parametrize("teacher_dtype", DTYPES)
def test_dtypes(student_dtype, teacher_dtype, device):
    assert_sorts(*pair(1, 101, device, student_dtype, teacher_dtype), **ROUNDS["one round"])


@pytest.mark.parametrize("n", [4, 7, 8, 9, 31, 32, 33, 65])
def test_lengths(n, device):
    assert_sorts(*pair(2, n, device), chunk=8, fan_in=4)


@pytest.mark.parametrize("rows, n", [(2, 5000), (1, 70_000)])
def test_long_rows(rows, n, device):
    student, teacher = _inputs("half tied", rows, n, device)
    assert_sorts(student, teacher, **few_programs(device))


@pytest.mark.gpu
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rows, n", [(3, 9001), (2, 65_536), (48, 65_536), (1, 1_048_576)])
def test_real_launches(kind, rows, n):
    assert_sorts(*_inputs(kind, rows, n, "cuda"))
