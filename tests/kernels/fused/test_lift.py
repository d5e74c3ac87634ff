"""LIFT's kernels against the float64 reference."""

import pytest
import torch

from liftplace._contract import Options
from liftplace.kernels.fused.launch import lift_launch
from liftplace.kernels.fused.lift import lift_fwd
from tests.kernels.harness import DTYPES, pair

from .harness import assert_agrees, run

SHAPES = [(3, 2), (5, 7), (70, 16), (4, 64), (3, 1031), (2, 4096), (1, 8192), (2, 8193)]


@pytest.fixture(params=[None, 32], ids=["whole", "chunks"])
def launch(request):
    """How (2, 100) is covered: whole rows, or chunks of sixteen that are merged."""
    return request.param and lift_launch(2, 100, max_block=request.param)


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


@pytest.mark.parametrize("norm", ["l1", "l2"])
@pytest.mark.parametrize("terms, weight", [("both", 0.25), ("coarse", "adaptive"), ("fine", 0.5)])
def test_options(norm, terms, weight, launch, device):
    options = {"norm": norm, "terms": terms, "weight": weight, "eps": 1e-4, "grad_out": -3.0}
    assert_agrees(*pair(2, 100, device), launch=launch, **options)


@pytest.mark.parametrize("student_dtype", DTYPES)
@pytest.mark.parametrize("teacher_dtype", DTYPES)
def test_dtypes(student_dtype, teacher_dtype, launch, device):
    assert_agrees(*pair(2, 100, device, student_dtype, teacher_dtype), launch=launch)


@pytest.mark.parametrize("value", [0.0, 0.1, -7.3, 1234.56])
def test_a_constant_student_has_no_variance(value, launch, device):
    student, teacher = pair(2, 100, device)
    actual = assert_agrees(torch.full_like(student, value), teacher, launch=launch)
    assert torch.equal(actual.coef[0], -torch.ones_like(actual.coef[0]))  # c = 0 and v = 0 exactly


def test_an_equal_student_has_no_loss_to_speak_of(launch, device):
    student, _ = pair(2, 100, device)
    actual = assert_agrees(student, student.clone(), launch=launch)
    assert actual.stats[1] < 1e-12


@pytest.mark.parametrize("magnitude", [1e-15, 1e-3, 1e3, 1e12])
def test_magnitudes(magnitude, launch, device):
    student, teacher = pair(2, 100, device)
    assert_agrees(magnitude * student, magnitude * teacher, launch=launch)


def test_a_mean_far_from_zero_keeps_the_variance(launch, device):
    student, teacher = pair(2, 100, device)
    assert_agrees(student + 500.0, teacher + 500.0, launch=launch)


@pytest.mark.filterwarnings("ignore:invalid value encountered")
@pytest.mark.parametrize("which", ["student", "teacher"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_a_bad_number_gives_no_quiet_loss(which, bad, launch, device):
    tensors = dict(zip(("student", "teacher"), pair(2, 100, device), strict=True))
    tensors[which][1, 50] = bad
    for terms in ("both", "coarse", "fine"):
        actual = run(**tensors, launch=launch, terms=terms)
        assert not actual.loss.isfinite()
        assert not actual.grad[1].isfinite().any()


def test_two_runs_give_the_same_bits(launch, device):
    student, teacher = pair(2, 100, device)
    first, second = (run(student, teacher, launch=launch) for _ in range(2))
    for name in ("loss", "coef", "stats", "grad"):
        assert torch.equal(getattr(first, name), getattr(second, name))


def test_rows_must_not_be_longer_than_the_limit(device):
    student = torch.empty(1, (1 << 20) + 1, device=device, dtype=torch.float16)
    with pytest.raises(ValueError, match="1048577"):
        lift_fwd(student, student, Options(student.shape[1]))
