"""Inputs at the edges: where a wrong number would come without a word."""

import pytest
import torch

from liftplace import lift_loss, place_loss

from .conftest import IMPLS
from .oracle import assert_matches

LOSSES = [lift_loss, place_loss]
ALL = ["reference", *IMPLS]


def pair(*shape, device="cpu", dtype=torch.float32):
    student = torch.randn(shape, device=device)
    teacher = 0.9 * student + 0.1 * torch.randn(shape, device=device)
    return student.to(dtype), teacher.to(dtype)


def value_and_gradient(loss_fn, student, teacher, **options):
    student = student.detach().requires_grad_()
    loss = loss_fn(student, teacher, **options)
    return loss.detach(), torch.autograd.grad(loss, student)[0]


@pytest.mark.parametrize("impl", ALL)
@pytest.mark.parametrize("side", [7, 17, 31])
def test_a_student_that_is_its_teacher_has_no_loss(side, impl, device):
    """Rows of 49, 289 and 961 leave one element alone, whose slope would be 0."""
    student = torch.randn(2, 3, side, side, device=device)
    loss, fit = place_loss(student, student, impl=impl, return_fit=True)
    assert loss < 1e-5
    assert fit.weight > 1 - 1e-5
    assert fit.slope.shape == (6, side * side // 16)


@pytest.mark.parametrize("tail", [0, 1, 2, 3])
@pytest.mark.parametrize("group_size", [2, 4, 5, 16, 128])
def test_what_is_left_of_a_row(tail, group_size, impl, device):
    student, teacher = pair(1, 2, 3 * group_size + tail, device=device)
    assert_matches(place_loss, student, teacher, impl=impl, group_size=group_size)
    student, teacher = pair(1, 1, group_size + tail, device=device)
    assert_matches(place_loss, student, teacher, impl=impl, group_size=group_size)


@pytest.mark.parametrize("impl", ALL)
@pytest.mark.parametrize("loss_fn", LOSSES)
@pytest.mark.parametrize("of", ["student", "both"])
def test_a_variance_beyond_float32_gives_no_number(of, loss_fn, impl, device):
    student, teacher = pair(2, 2, 64, device=device)
    if of == "both":
        teacher = 1e21 * teacher
    assert not loss_fn(1e21 * student, teacher, impl=impl).isfinite()


@pytest.mark.parametrize("impl", ALL)
@pytest.mark.parametrize("value", [777.7, -0.1, 3e4])
def test_a_long_constant_row_has_a_slope_of_zero(value, impl, device):
    student = torch.full((1, 1, 100_003), value, device=device)
    teacher = torch.randn(1, 1, 100_003, device=device)
    if impl == "triton" and device == "cpu":
        student, teacher = student[..., :4099], teacher[..., :4099]  # the interpreter is slow
    _, fit = lift_loss(student, teacher, impl=impl, return_fit=True)
    assert fit.slope.abs().max() < 1e-6


@pytest.mark.parametrize("loss_fn", LOSSES)
def test_the_fine_gradient_where_the_slope_is_nearly_one(loss_fn, impl, device):
    """Half of the teacher is one unit in the last place off: what float32 keeps of the slope itself
    is off by as much as the slope is from 1."""
    student = 2.0 ** torch.randint(0, 4, (2, 2, 64), device=device) * _signs(64, device)
    teacher = torch.where(torch.rand_like(student) < 0.5, student, student * (1 + 2.0**-23))
    options = {"terms": "fine", "weight": 1.0}
    _, expected = value_and_gradient(
        loss_fn, student.double(), teacher.double(), impl="torch", **options
    )
    _, actual = value_and_gradient(loss_fn, student, teacher, impl=impl, **options)
    assert (actual - expected).abs().max() < 1e-3 * expected.abs().max()


def _signs(count, device):
    return torch.randint(0, 2, (count,), device=device) * 2 - 1


@pytest.mark.parametrize("loss_fn", LOSSES)
def test_saved_tensors_that_come_back_strided(loss_fn, impl, device):
    """As hooks that keep them elsewhere may give them."""

    def apart(x):
        strided = x.new_empty((*x.shape, 2))
        strided[..., 0] = x
        return strided[..., 0]

    student, teacher = pair(2, 3, 40, device=device)
    _, expected = value_and_gradient(loss_fn, student, teacher, impl=impl)
    with torch.autograd.graph.saved_tensors_hooks(apart, lambda x: x):
        _, actual = value_and_gradient(loss_fn, student, teacher, impl=impl)
    assert torch.equal(actual, expected)


@pytest.mark.parametrize("loss_fn", LOSSES)
def test_negated_views_and_zeros_without_memory(loss_fn, impl, device):
    student, teacher = pair(2, 3, 40, device=device)
    view = torch.complex(student, -student).conj().imag
    assert view.is_neg() and torch.equal(view, student)
    expected = loss_fn(student, teacher, impl=impl)
    assert loss_fn(view, teacher, impl=impl) == expected
    zeros = torch._efficientzerotensor((2, 3, 40), device=device)
    expected = loss_fn(torch.zeros_like(teacher), teacher, impl=impl)
    assert loss_fn(zeros, teacher, impl=impl) == expected


@pytest.mark.parametrize("impl", ALL)
def test_another_default_device(impl, device):
    student, teacher = pair(2, 3, 40, device=device)
    expected = value_and_gradient(place_loss, student, teacher, impl=impl)
    with torch.device("meta"):
        actual = value_and_gradient(place_loss, student, teacher, impl=impl)
    assert all(map(torch.equal, actual, expected))


def test_a_double_weight_stays_one():
    student, teacher = pair(2, 3, 40, dtype=torch.float64)
    weight = torch.tensor(1 / 3, dtype=torch.float64)
    _, fit = place_loss(student, teacher, weight=weight, impl="torch", return_fit=True)
    assert fit.weight == weight


def test_subnormal_halves_where_the_processor_flushes_floats(impl):
    """float16's subnormal numbers are ordinary ones of float32."""
    if impl == "cuda" or not torch.set_flush_denormal(True):
        pytest.skip("not here")
    try:
        student = (torch.randint(1, 1000, (1, 1, 64)) * 2.0**-24).half()
        expected = lift_loss(student.float(), student.float() + 1, impl="reference", eps=1e-12)
        actual = lift_loss(student, student.float() + 1, impl=impl, eps=1e-12)
        torch.testing.assert_close(actual, expected, rtol=1e-4, atol=0)
    finally:
        torch.set_flush_denormal(False)
