"""LIFT in CUDA C++ against the float64 reference."""

import pytest
import torch

from tests.kernels.harness import DTYPES, pair

from .harness import assert_agrees, run


@pytest.mark.parametrize(
    "rows, n",
    [(3, 2), (2, 5), (3, 64), (2, 257), (2, 1024), (2, 4097), (1, 8192), (2, 20_001)],
)
def test_sizes(rows, n, device):
    assert_agrees(*pair(rows, n, device))


@pytest.mark.parametrize("n", [100, 9001])
@pytest.mark.parametrize("norm", ["l1", "l2"])
@pytest.mark.parametrize("terms, weight", [("both", 0.25), ("coarse", "adaptive"), ("fine", 0.5)])
def test_options(n, norm, terms, weight, device):
    options = {"norm": norm, "terms": terms, "weight": weight, "eps": 1e-4, "grad_out": -3.0}
    assert_agrees(*pair(2, n, device), **options)


@pytest.mark.parametrize("student_dtype", DTYPES)
@pytest.mark.parametrize("teacher_dtype", DTYPES)
def test_dtypes(student_dtype, teacher_dtype, device):
    assert_agrees(*pair(3, 100, device, student_dtype, teacher_dtype))


@pytest.mark.parametrize("n", [97, 8300])
def test_a_constant_student(n, device):
    student, teacher = pair(2, n, device)
    actual = assert_agrees(torch.full_like(student, 0.1), teacher)
    assert (actual.coef[0] + 1).abs().max() < 1e-6  # a variance of 1e-9 would make it 0.01


@pytest.mark.parametrize("n", [97, 8300])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_bad_number_gives_no_quiet_loss(n, bad, device):
    student, teacher = pair(3, n, device)
    teacher[2, 60] = bad
    for terms in ("both", "coarse", "fine"):
        actual = run(student, teacher, terms=terms)
        assert not actual.loss.isfinite()
        assert not actual.grad[2, 60].isfinite()


@pytest.mark.gpu
@pytest.mark.parametrize("rows, n", [(256, 4096), (48, 65_536), (2, 1_048_576)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_real_sizes(rows, n, dtype):
    assert_agrees(*pair(rows, n, "cuda", dtype))
