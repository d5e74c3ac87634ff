"""The C++ op beyond what every implementation is tested for: threads, hard errors, long rows."""

import pytest
import torch

from liftplace import lift_loss, place_loss
from liftplace._contract import LossSum, Options
from liftplace.kernels.cpu import op
from tests.oracle import assert_matches

from .inputs import KINDS, row

pytestmark = pytest.mark.skipif(not op.is_built(), reason=str(op.not_built))


@pytest.fixture
def threads():
    """Sets the number of threads of a test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def pair(rows: int, n: int, dtype=torch.float32):
    student = torch.randn(rows, n)
    return student.to(dtype), (0.9 * student + 0.1 * torch.randn(rows, n)).to(dtype)


def both(student, teacher, size, with_groups=True):
    options = Options(size, with_groups=with_groups)
    loss, fitted = op.forward(student, teacher, None, options)
    if not with_groups:
        return loss, fitted.coef, fitted.stats
    grad = op.backward(student, teacher, fitted, torch.tensor(1.0), LossSum())
    return loss, fitted.coef, fitted.stats, grad


@pytest.mark.parametrize("size", [16, 5000])
@pytest.mark.parametrize("rows, n", [(40, 5000), (3, 70_000), (30_000, 7)])
def test_threads_do_not_change_a_bit(rows, n, size, threads):
    student, teacher = pair(rows, n)
    threads(1)
    expected = both(student, teacher, min(size, n))
    for count in (2, 3, 8):
        threads(count)
        for one, other in zip(both(student, teacher, min(size, n)), expected, strict=True):
            assert torch.equal(one, other)


def test_group_numbers_that_nobody_reads():
    """The same numbers come out, and no group number is kept."""
    student, teacher = pair(3, 1000)
    *expected, _ = both(student, teacher, 16)
    actual = both(student, teacher, 16, with_groups=False)
    for one, other in zip(actual, expected, strict=True):
        assert torch.equal(one, other)
    _, fitted = op.forward(student, teacher, None, Options(16, with_groups=False))
    assert fitted.group.shape == (0,)


@pytest.mark.parametrize("kind", sorted(set(KINDS) - {"one huge", "overflowing"}))
@pytest.mark.parametrize("size", [16, 100])
def test_loss_and_gradient_on_hard_errors(kind, size):
    student = torch.randn(1, 1, 3000)
    teacher = student + row(kind, 3000)
    assert_matches(place_loss, student, teacher, impl="native", group_size=size)


@pytest.mark.parametrize("n", [70_000, 200_000])
def test_long_rows(n):
    student, teacher = pair(2, n)
    assert_matches(lift_loss, student[:, None], teacher[:, None], impl="native")
    assert_matches(place_loss, student[:, None], teacher[:, None], impl="native", group_size=3)


@pytest.mark.parametrize("offset", [0.0, 3.0, 1e4])
def test_a_constant_group_has_no_variance(offset):
    """What k = 1 / eps would multiply otherwise."""
    student = torch.full((1, 1, 1000), 0.1) + offset
    teacher = student + torch.randn(1, 1, 1000)
    _, fit = place_loss(student, teacher, impl="native", return_fit=True)
    assert torch.equal(fit.slope, torch.zeros_like(fit.slope))


def test_weight_of_another_dtype():
    student, teacher = pair(3, 100)
    student, teacher = student[None], teacher[None]
    expected = place_loss(student, teacher, impl="native", weight=0.25)
    weight = torch.tensor(0.25, dtype=torch.float64)
    assert place_loss(student, teacher, impl="native", weight=weight) == expected
