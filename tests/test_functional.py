"""lift_loss, place_loss and linear_fit against the float64 reference, on hard inputs."""

import pytest
import torch

from liftplace import lift_loss, linear_fit, place_loss, reference

from .conftest import IMPLS
from .oracle import assert_matches, oracle


def pair(*shape, device="cpu", dtype=torch.float32, mix=0.8):
    """A student and a teacher that is near it, so that 0 < w < 1."""
    student = torch.randn(shape, device=device)
    teacher = mix * student + 0.1 * torch.randn(shape, device=device) + 0.05
    return student.to(dtype), teacher.to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize(
    "shape", [(2, 3, 8, 8), (1, 1, 7, 13), (3, 2, 5), (2, 1, 17, 1, 3), (4, 6, 2)]
)
@pytest.mark.parametrize("scope", ["channel", "sample"])
def test_shapes_and_dtypes(shape, dtype, scope, impl, device):
    if impl != "torch" and dtype == torch.float64:
        with pytest.raises(RuntimeError, match="float32"):
            lift_loss(*pair(*shape, dtype=dtype, device=device), impl=impl)
        return
    student, teacher = pair(*shape, dtype=dtype, device=device)
    assert_matches(lift_loss, student, teacher, impl=impl, scope=scope)
    assert_matches(place_loss, student, teacher, impl=impl, scope=scope, group_size=4)


@pytest.mark.parametrize("norm", ["l1", "l2"])
@pytest.mark.parametrize("terms", ["both", "coarse", "fine"])
@pytest.mark.parametrize("weight", ["adaptive", 0.0, 0.3, 1, "tensor"])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_options(norm, terms, weight, reduction, impl, device):
    student, teacher = pair(2, 3, 6, 7, device=device)
    if weight == "tensor":
        weight = torch.tensor(0.6, device=device)
    options = {"norm": norm, "terms": terms, "weight": weight, "reduction": reduction}
    assert_matches(lift_loss, student, teacher, impl=impl, **options)
    assert_matches(place_loss, student, teacher, impl=impl, group_size=8, **options)


GROUPS = [{"group_size": size} for size in (2, 3, 8, 16, 20, 40, 41, 1000)]
GROUPS += [{"num_groups": number} for number in (1, 5, 20)]


@pytest.mark.parametrize("groups", [*GROUPS, {}])
def test_groups(groups, impl, device):
    """Ragged last groups (41 is prime), one of one element, one group, the default."""
    student, teacher = pair(2, 2, 41, device=device)
    assert_matches(place_loss, student, teacher, impl=impl, **groups)


def test_mixed_dtypes(impl, device):
    student, teacher = pair(2, 3, 6, 6, device=device)
    assert_matches(place_loss, student.bfloat16(), teacher, impl=impl, group_size=4)
    assert_matches(place_loss, student, teacher.half(), impl=impl, group_size=4)


@pytest.mark.parametrize("layout", ["channels_last", "sliced", "transposed", "expanded"])
def test_strides(layout, impl, device):
    student, teacher = pair(2, 4, 8, 6, device=device)
    if layout == "channels_last":
        student = student.to(memory_format=torch.channels_last)
    elif layout == "sliced":
        student, teacher = student[:, ::2, 1:, ::3], teacher[:, 1::2, :-1, 1::3]
    elif layout == "transposed":
        student, teacher = student.transpose(2, 3), teacher.transpose(2, 3)
    else:
        teacher = teacher[:1].expand(2, -1, -1, -1)
    assert_matches(place_loss, student, teacher, impl=impl, group_size=4)
    assert_matches(lift_loss, student, teacher, impl=impl)


@pytest.mark.parametrize("scale", [1e-12, 1e-4, 1.0, 1e4, 1e12])
def test_magnitudes(scale, impl, device):
    student, teacher = pair(2, 2, 64, device=device)
    options = {"weight": 1.0, "terms": "fine"} if scale < 1e-6 else {}
    assert_matches(place_loss, scale * student, scale * teacher, impl=impl, **options)


@pytest.mark.parametrize("constant", [0.0, 1.0, 0.1, 12345.678])
@pytest.mark.parametrize("length", [35, 64])
def test_constant_student(constant, length, impl, device):
    """No variance: the slope is 0 and the gradient is divided by eps alone."""
    teacher = torch.randn(2, 2, length, device=device)
    student = torch.full_like(teacher, constant)
    assert_matches(lift_loss, student, teacher, impl=impl)
    assert_matches(place_loss, student, teacher, impl=impl, group_size=8)


def test_equal_errors_go_by_index(impl, device):
    student = torch.randn(2, 2, 48, device=device).round(decimals=1)
    teacher = student + torch.tensor([0.5, -0.5], device=device).repeat(24)
    assert_matches(place_loss, student, teacher, impl=impl, group_size=8, weight=0.5)
    group = linear_fit(student, student, group_size=8, impl=impl).group
    assert (group == torch.arange(48, device=device) // 8).all()


def test_student_equal_to_teacher(impl, device):
    student = torch.randn(2, 2, 64, device=device)
    loss = place_loss(student, student.clone(), impl=impl)
    assert 0 <= loss < 1e-5


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("where", ["student", "teacher"])
@pytest.mark.parametrize("terms", ["both", "coarse", "fine"])
def test_non_finite_in_non_finite_out(bad, where, terms, impl, device):
    inputs = dict(zip(("student", "teacher"), pair(2, 2, 40, device=device), strict=True))
    inputs[where][1, 0, 17] = bad
    assert not lift_loss(**inputs, terms=terms, impl=impl).isfinite()
    assert not place_loss(**inputs, terms=terms, impl=impl).isfinite()


def test_grad_output(impl, device):
    student, teacher = pair(2, 3, 5, 5, device=device)
    assert_matches(place_loss, student, teacher, impl=impl, group_size=4, grad_out=-3.5)
    assert_matches(lift_loss, student, teacher, impl=impl, grad_out=1e3)


def test_calls_are_repeatable_and_leave_inputs_alone(impl, device):
    student, teacher = pair(3, 2, 50, device=device)
    before = student.clone(), teacher.clone()
    grads, losses = [], []
    for _ in range(2):
        leaf = student.clone().requires_grad_()
        loss = place_loss(leaf, teacher, impl=impl)
        loss.backward()
        losses.append(loss.detach())
        grads.append(leaf.grad)
    assert losses[0] == losses[1]
    assert torch.equal(grads[0], grads[1])
    assert torch.equal(before[0], student) and torch.equal(before[1], teacher)


def test_backward_twice_through_one_graph(impl, device):
    student, teacher = pair(2, 2, 20, device=device)
    student.requires_grad_()
    loss = place_loss(student, teacher, impl=impl)
    (first,) = torch.autograd.grad(loss, student, retain_graph=True)
    (second,) = torch.autograd.grad(loss, student)
    assert torch.equal(first, second)


def test_no_grad(impl, device):
    student, teacher = pair(2, 2, 20, device=device)
    with torch.no_grad():
        loss, fit = place_loss(student.requires_grad_(), teacher, impl=impl, return_fit=True)
    assert not loss.requires_grad
    assert not any(x.requires_grad for x in fit)
    assert loss == place_loss(student, teacher, impl=impl)


@pytest.mark.parametrize("impl", ["reference", *IMPLS])
@pytest.mark.parametrize("loss_fn", [lift_loss, place_loss])
@pytest.mark.parametrize("terms", ["both", "coarse"])
def test_what_was_fitted_is_the_callers_own(loss_fn, terms, impl, device):
    """An all_reduce for a log line changes the fit in place, and neither loss nor gradient."""
    student, teacher = pair(2, 2, 20, device=device)
    expected = loss_fn(student.requires_grad_(), teacher, impl=impl, terms=terms)
    (gradient,) = torch.autograd.grad(expected, student)
    loss, fit = loss_fn(student, teacher, impl=impl, terms=terms, return_fit=True)
    for value in fit:
        value.zero_()
    assert torch.equal(loss, expected)
    assert torch.equal(torch.autograd.grad(loss, student)[0], gradient)


@pytest.mark.parametrize("impl", ["reference", *IMPLS])
def test_a_given_weight_stays_the_callers(impl, device):
    weight = torch.tensor(0.5, device=device)
    _, fit = place_loss(*pair(2, 2, 20, device=device), weight=weight, impl=impl, return_fit=True)
    fit.weight.zero_()
    assert weight == 0.5


def test_the_loss_is_not_copied(impl, device):
    """A copy would be one more launch, a fourth beside fit, combine and backward."""
    student, teacher = pair(2, 2, 20, device=device)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        loss = place_loss(student.requires_grad_(), teacher, impl=impl)
        torch.autograd.grad(loss, student, torch.ones((), device=device))
    called = {event.key for event in profile.key_averages()}
    assert "aten::detach" in called
    assert "aten::clone" not in called


def test_keeps_nothing_that_has_no_gradient(impl, device):
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
        place_loss(*pair(2, 2, 20, device=device), impl=impl)
    assert not kept


def test_an_input_changed_before_the_backward_is_noticed(impl, device):
    student, teacher = pair(2, 2, 20, device=device)
    student.requires_grad_()
    loss = place_loss(student, teacher, impl=impl)
    teacher.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize("impl", ["reference", *IMPLS])
@pytest.mark.parametrize("shape", [(0, 3, 4, 4), (0, 5, 2)])
def test_empty_batch(impl, shape, device):
    student = torch.empty(shape, device=device, requires_grad=True)
    for loss_fn in (lift_loss, place_loss):
        loss, fit = loss_fn(student, torch.empty(shape, device=device), impl=impl, return_fit=True)
        loss.backward()
        assert loss == 0
        assert student.grad.shape == shape
        assert fit.slope.shape[0] == 0


def test_autocast_computes_in_float32(impl, device):
    student, teacher = pair(2, 2, 30, device=device)
    expected = place_loss(student, teacher, impl=impl)
    with torch.autocast(device, torch.bfloat16):
        loss = place_loss(student, teacher, impl=impl)
        assert_matches(place_loss, student.bfloat16(), teacher, impl=impl)
    assert loss.dtype == torch.float32
    assert loss == expected


def test_linear_fit(impl, device):
    student, teacher = pair(2, 3, 7, 7, device=device)
    one = linear_fit(student, teacher, impl=impl)
    assert one.slope.shape == one.intercept.shape == (6, 1)
    assert one.group.shape == student.shape and not one.group.any()
    many = linear_fit(student, teacher, group_size=10, impl=impl)
    expected = reference.linear_fit(student.double(), teacher.double(), group_size=10)
    assert torch.equal(many.group, expected.group)
    torch.testing.assert_close(many.slope.double(), expected.slope, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(many.intercept.double(), expected.intercept, rtol=1e-4, atol=1e-5)


def test_more_groups_than_signed_int16_holds(device):
    """Group numbers above 32,767 are kept as the bit pattern of two bytes."""
    student, teacher = pair(1, 1, 80_000, device=device)
    expected = reference.linear_fit(student, teacher, group_size=2)
    actual = linear_fit(student, teacher, group_size=2, impl="torch")
    assert torch.equal(actual.group, expected.group)
    options = {"group_size": 2, "weight": 1.0, "terms": "fine"}
    assert_matches(place_loss, student, teacher, impl="torch", **options)


def test_sum_is_the_mean_times_a_sample(impl, device):
    student, teacher = pair(5, 3, 4, 4, device=device)
    mean = place_loss(student, teacher, impl=impl)
    total = place_loss(student, teacher, impl=impl, reduction="sum")
    torch.testing.assert_close(total, mean * 48)


def test_weight_tensor_is_a_constant(impl, device):
    student, teacher = pair(2, 2, 20, device=device)
    weight = torch.tensor(0.5, device=device, requires_grad=True)
    place_loss(student.requires_grad_(), teacher, weight=weight, impl=impl).backward()
    assert weight.grad is None
    assert student.grad.abs().sum() > 0


def test_oracle_has_a_gradient_through_the_coarse_term():
    student, teacher = pair(2, 2, 20)
    both = oracle(student, teacher).grad
    fine = oracle(student, teacher, terms="fine").grad
    assert not torch.allclose(both, fine)
