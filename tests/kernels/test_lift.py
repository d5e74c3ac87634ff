"""LIFT's kernels against the float64 reference."""

import pytest
import torch
from liftplace.kernels.launch import lift_launch
from liftplace.kernels.lift import lift_fwd

from .harness import DTYPES, assert_agrees, pair, run

SHAPES = [(1, 1), (3, 2), (5, 7), (70, 16), (4, 64), (3, 1031), (2, 4096), (1, 8192), (2, 8193)]


@pytest.mark.parametrize("rows, n", [*SHAPES, (1, 70_000)])
def test_matches_the_reference(rows, n, device):
    assert_agrees(*pair(rows, n, device))


@pytest.mark.parametrize("n", [33, 64, 97, 300])
def test_chunks_give_the_same_fit(n, device):
    student, teacher = pair(3, n, device)
    launch = lift_launch(3, n, max_block=32)
    assert launch.chunks > 1
    chunked = assert_agrees(student, teacher, launch=launch)
    whole = run(student, teacher)
    torch.testing.assert_close(chunked.coef, whole.coef, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("norm", ["l1", "l2"])
@pytest.mark.parametrize("terms, weight", [("both", 0.25), ("coarse", "adaptive"), ("fine", 0.5)])
def test_options(norm, terms, weight, chunked, device):
    launch = lift_launch(2, 100, max_block=32) if chunked else None
    assert_agrees(
        *pair(2, 100, device), launch=launch, norm=norm, terms=terms, weight=weight,
        eps=1e-4, grad_out=-3.0,
    )  # fmt: skip


@pytest.mark.parametrize("student_dtype", DTYPES)
@pytest.mark.parametrize("teacher_dtype", DTYPES)
@pytest.mark.parametrize("n", [100, 8200])
def test_dtypes(student_dtype, teacher_dtype, n, device):
    assert_agrees(*pair(2, n, device, student_dtype, teacher_dtype))


@pytest.mark.parametrize("value", [0.0, 0.1, -7.3, 1234.56])
@pytest.mark.parametrize("n", [3, 100, 8200])
def test_a_constant_student_has_no_variance(value, n, device):
    student, teacher = pair(2, n, device)
    actual = assert_agrees(torch.full_like(student, value), teacher)
    assert torch.equal(actual.coef[0], torch.zeros_like(actual.coef[0]))  # c = 0 and v = 0 exactly


def test_an_equal_student_has_no_loss_to_speak_of(device):
    student, _ = pair(2, 100, device)
    actual = assert_agrees(student, student.clone())
    assert actual.terms[2] < 1e-12


@pytest.mark.parametrize("magnitude", [1e-15, 1e-3, 1e3, 1e12])
@pytest.mark.parametrize("n", [100, 8200])
def test_magnitudes(magnitude, n, device):
    student, teacher = pair(2, n, device)
    assert_agrees(magnitude * student, magnitude * teacher)


def test_a_mean_far_from_zero_keeps_the_variance(device):
    student, teacher = pair(2, 1000, device)
    assert_agrees(student + 500.0, teacher + 500.0)


@pytest.mark.parametrize("which", ["student", "teacher"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("n", [100, 8200])
def test_a_bad_number_gives_no_quiet_loss(which, bad, n, device):
    tensors = dict(zip(("student", "teacher"), pair(3, n, device), strict=True))
    tensors[which][1, n // 2] = bad
    for terms in ("both", "coarse", "fine"):
        actual = run(**tensors, terms=terms)
        assert not actual.terms[0].isfinite()
        assert not actual.grad[1].isfinite().any()


@pytest.mark.parametrize("n", [100, 8200])
def test_two_runs_give_the_same_bits(n, device):
    student, teacher = pair(3, n, device)
    for first, second in zip(run(student, teacher)[1:], run(student, teacher)[1:], strict=True):
        assert torch.equal(first, second)


def test_rows_must_not_be_longer_than_the_limit(device):
    student = torch.empty(1, (1 << 20) + 1, device=device, dtype=torch.float16)
    with pytest.raises(ValueError, match="1048577"):
        lift_fwd(student, student, eps=1e-7, squared=False)
