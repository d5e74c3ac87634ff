"""Ranks from buckets: exact whatever the errors, and no matter which thread comes first."""

import pytest
import torch

from tests.kernels.harness import pair

from .harness import assert_agrees, emulated, run


def errors(kind: str, rows: int, n: int, device: str):
    """A student and a teacher whose errors crowd the buckets in one way or another."""
    student, teacher = pair(rows, n, device)
    if kind == "all equal":
        student = student.round()
        teacher = student + 1.0
    elif kind == "zeros":
        teacher = student.clone()
    elif kind == "half tied":
        teacher[:, ::2] = student[:, ::2]
    elif kind == "one huge":
        teacher[:, n // 3] = 1e18
    elif kind == "underflowing":  # odd ones lose digits, most of the even ones all of them
        scale = torch.where(torch.arange(n, device=device) % 2 == 1, 1e-18, 1e-22)
        student, teacher = scale * student, scale * teacher
    elif kind == "tiny beside one huge":
        student, teacher = torch.zeros_like(student), 1e-12 * teacher
        teacher[:, n // 3] = 1e18
    elif kind == "cauchy":
        teacher = student + torch.empty_like(student).cauchy_()
    elif kind == "integers":
        student, teacher = (3 * student).round(), (3 * teacher).round()
    elif kind == "exponential":  # elements crowd at the low end of a bucket, and again in there
        step = (1 << (torch.arange(n, device=device) % 23)).int()
        bits = torch.ones(rows, n, device=device).view(torch.int32) + step
        student, teacher = torch.zeros_like(student), bits.view(torch.float32)
    else:
        dtype = getattr(torch, kind)
        student, teacher = student.to(dtype), teacher.to(dtype)
    return student, teacher


KINDS = ["all equal", "zeros", "half tied", "one huge", "underflowing", "tiny beside one huge"]
KINDS += ["cauchy", "integers", "exponential", "bfloat16", "float16"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rows, n", [(2, 97), (1, 3001)])
def test_crowded_buckets(kind, rows, n, device):
    assert_agrees(*errors(kind, rows, n, device), 16)


@pytest.mark.parametrize("kind", ["half tied", "exponential", "bfloat16"])
def test_crowded_buckets_of_the_longest_row(kind, device):
    assert_agrees(*errors(kind, 1, 16_000, device), 16)


@pytest.mark.parametrize("kind", ["cauchy", "all equal", "half tied", "bfloat16"])
def test_the_order_of_threads_does_not_show(kind, emulation, monkeypatch):
    student, teacher = errors(kind, 3, 1501, "cpu")
    results = []
    for seed in range(4):
        with emulated(monkeypatch, emulation, seed):
            results.append(run(student, teacher, 16))
    for result in results[1:]:
        for one, other in zip(results[0], result, strict=True):
            assert torch.equal(one, other)


@pytest.mark.gpu
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rows, n", [(256, 1024), (288, 4096), (64, 16_384), (6, 65_536)])
def test_real_sizes(kind, rows, n):
    assert_agrees(*errors(kind, rows, n, "cuda"), 16)
