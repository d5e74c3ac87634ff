"""The float64 reference on the grouping that the inputs' own precision gives, and how near is near.

A fit over a group whose elements are nearly equal magnifies the rounding of its inputs, in any
implementation. So an error is allowed to be a share of the result's largest entry, by the table,
plus what rounding one unit in the last place of the inputs does, by the condition of each group.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from liftplace import reference
from liftplace._arguments import LossArguments, group_length, split_rows
from liftplace._contract import accumulation_dtype

# Relative to the largest entry: of loss and fit by the accumulation dtype; of the gradient by the
# student's, to which it is rounded.
TOLERANCE = {torch.float64: 1e-11, torch.float32: 1e-5}
GRAD_TOLERANCE = {
    torch.float64: 1e-11,
    torch.float32: 2e-5,
    torch.bfloat16: 8e-3,  # one unit in the last place: Triton's interpreter truncates
    torch.float16: 5e-4,
}
_ROUNDINGS = 8  # of an input, that an implementation may add up


class Expected(NamedTuple):
    """Each value and the error that rounding alone may bring; grad in the student's shape."""

    loss: Tensor
    loss_error: Tensor
    fit: reference.Fit
    coarse_error: Tensor
    fine_error: Tensor
    weight_error: Tensor
    slope_error: Tensor
    grad: Tensor
    grad_error: Tensor


def oracle(student: Tensor, teacher: Tensor, *, group_size=None, num_groups=None, **options):
    """The reference in float64, sorted on the errors as the inputs' precision has them."""
    arguments = LossArguments(**options)
    scope, norm, weight, terms, reduction, eps, _ = arguments
    rows = split_rows(student, teacher, scope)
    size = group_length(group_size, num_groups, rows.length)
    student, teacher = student.detach(), teacher.detach()
    order = reference.order_by_error(*reference.as_rows(student, teacher, rows), size)
    exact = student.double().requires_grad_()
    s, t = reference.as_rows(exact, teacher.double(), rows)
    loss, fit = reference.loss_in_order(s, t, order, rows, size, arguments)
    loss.backward()
    unit = torch.finfo(accumulation_dtype(student, teacher)).eps
    scale = rows.sample_length if reduction == "sum" else 1
    errors = _rounding(s.detach(), t, order, size, fit, norm, terms, eps, _ROUNDINGS * unit)
    slope, coarse, deviation, fine, grad = errors
    w_error = deviation if weight == "adaptive" and terms != "fine" else torch.zeros_like(fine)
    loss_error = (coarse + fit.weight * fine + w_error * fit.fine) * scale
    grad = grad * scale / max(s.numel(), 1)
    back = torch.empty_like(grad).scatter_(1, order, grad).view(student.shape)
    # an error of w moves the whole of the fine term's gradient
    back = back + w_error * exact.grad.abs()
    return Expected(loss.detach(), loss_error, fit, coarse, fine, w_error, slope, exact.grad, back)


def _rounding(s, t, order, size, fit, norm, terms, eps, unit):
    """First-order effect of errors `unit` of s and t on slope, coarse, D, fine and gradient."""
    sizes = reference.group_sizes(s, size)
    rows, n = s.shape
    s, t = reference.cut(s, order, size), reference.cut(t, order, size)
    inside = torch.arange(s.shape[2], device=s.device) < sizes[:, None]
    step = unit * (s.abs() + t.abs()).amax(2)  # (rows, groups)
    d = t - s
    mean_s, mean_d = s.sum(2) / sizes, d.sum(2) / sizes
    ds, dd = (s - mean_s[..., None]) * inside, (d - mean_d[..., None]) * inside
    spread_s, spread_d = ds.abs().amax(2), dd.abs().amax(2)
    inverse = 1 / (ds.square().sum(2) / sizes + eps)
    off, a = fit.slope.double() - 1, fit.intercept.double()
    b_error = step * (spread_s + spread_d + step) * (1 + off.abs()) * inverse + unit * off.abs()
    a_error = step * (1 + off.abs()) + b_error * mean_s.abs()
    residual = off[..., None] * ds - dd
    fine_error = 2 * residual.abs() * (step * (2 + off.abs()) + spread_s * b_error)[..., None]
    fine_error = ((fine_error + (step**2)[..., None]) * inside).sum() / max(rows * n, 1)
    near = norm == "l1" and terms != "fine"
    flips = (off.abs() <= b_error) | (a.abs() <= a_error) if near else torch.zeros_like(a).bool()
    if norm == "l1":
        coarse_error, alpha, gamma, bent = b_error + a_error, 1.0, 1.0, 0.0
    else:
        coarse_error = 2 * (off.abs() * b_error + a.abs() * a_error)
        alpha, gamma, bent = 2 * off.abs(), 2 * a.abs(), 2 * (b_error + a_error)
    k = (alpha + gamma * mean_s.abs()) * inverse
    k_error = (bent * (1 + mean_s.abs()) + gamma * step) * inverse
    k_error = k_error + k * step * (spread_s + step) * inverse
    lever = spread_d + (3 + 2 * off.abs()) * spread_s
    grad_error = k_error * lever + k * (step * (4 + 2 * off.abs()) + 2 * b_error * spread_s)
    grad_error = grad_error + bent * (1 + off.abs()) + gamma * b_error
    grad_error = grad_error + 2 * (1 + off.abs()) * (step * (2 + off.abs()) + b_error * spread_s)
    grad_error = torch.where(flips, torch.inf, grad_error)  # either sign is right
    coarse_error, deviation_error = (
        (error * sizes).sum() / max(rows * n, 1) for error in (coarse_error, b_error + a_error)
    )
    number = (torch.arange(n, device=s.device) // size).clamp(max=len(sizes) - 1)
    return b_error, coarse_error, deviation_error, fine_error, grad_error[:, number]


def assert_matches(
    loss_fn, student: Tensor, teacher: Tensor, *, impl: str, grad_out=1.0, **options
):
    """loss_fn's loss, gradient and fit agree with the oracle's."""
    student = student.detach().requires_grad_()
    loss, fit = loss_fn(student, teacher, impl=impl, return_fit=True, **options)
    (loss * grad_out).backward()
    if loss_fn.__name__ == "lift_loss":
        options["num_groups"] = 1
    expected = oracle(student, teacher, **options)

    wide = accumulation_dtype(student, teacher)
    assert loss.dtype == wide
    assert loss.shape == ()
    assert student.grad.dtype == student.dtype
    assert student.grad.shape == student.shape
    tolerance = TOLERANCE[wide]
    _close("coarse", fit.coarse, expected.fit.coarse, tolerance, expected.coarse_error)
    _close("fine", fit.fine, expected.fit.fine, tolerance, expected.fine_error)
    _close("weight", fit.weight, expected.fit.weight, tolerance, expected.weight_error)
    _close("loss", loss, expected.loss, tolerance, expected.loss_error)
    _close("slope", fit.slope, expected.fit.slope, tolerance, expected.slope_error)
    tolerance = max(tolerance, GRAD_TOLERANCE[student.dtype])
    smallest = 6e-8 if student.dtype == torch.float16 else 0.0  # float16 has no smaller number
    grad_error = expected.grad_error * abs(grad_out) + smallest
    grad = expected.grad * grad_out
    overflow = grad.to(student.dtype).isinf()  # float16 ends at 65,504
    assert torch.equal(student.grad[overflow], grad.to(student.dtype)[overflow])
    _close("gradient", student.grad[~overflow], grad[~overflow], tolerance, grad_error[~overflow])


def _close(name: str, actual: Tensor, expected: Tensor, relative: float, rounding):
    actual, expected = actual.detach().double(), expected.double()
    assert actual.shape == expected.shape, name
    if not expected.numel():
        return
    allowed = relative * expected.abs().max() + rounding
    worst = ((actual - expected).abs() / allowed.clamp(min=1e-300)).max().item()
    assert worst <= 1, f"{name}: error is {worst:.3g} times what is allowed\n{actual}\n{expected}"
