"""The ops in float64, written apart from every implementation, and how near is near.

The grouping is the one that the inputs' own precision gives. A fit over a group whose elements are
nearly equal magnifies the rounding of its inputs, in any implementation. So an error is allowed to
be a share of the result's largest entry, by the table, plus what rounding one unit in the last
place of the inputs does, by the condition of each group.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

# Relative to the largest entry: of loss and fit by the dtype of sums; of the gradient by the
# student's, to which it is rounded.
TOLERANCE = {torch.float64: 1e-11, torch.float32: 1e-5}
GRAD_TOLERANCE = {
    torch.float64: 1e-11,
    torch.float32: 2e-5,
    torch.bfloat16: 8e-3,  # one unit in the last place: Triton's interpreter truncates
    torch.float16: 5e-4,
}
SMALLEST = {torch.float16: 2**-24, torch.bfloat16: 2**-126, torch.float32: 2**-126}
_ROUNDINGS = 8  # of an input, that an implementation may add up


class Fit(NamedTuple):
    """As `liftplace.reference.Fit`, in float64."""

    slope: Tensor
    intercept: Tensor
    coarse: Tensor
    fine: Tensor
    weight: Tensor


class Expected(NamedTuple):
    """Each value and the error that rounding alone may bring; group and grad have the student's
    shape."""

    loss: Tensor
    loss_error: Tensor
    fit: Fit
    coarse_error: Tensor
    fine_error: Tensor
    weight_error: Tensor
    slope_error: Tensor
    group: Tensor
    grad: Tensor
    grad_error: Tensor


class Groups:
    """The elements of (rows, n) by group: the rows sorted by error, ties by index, and cut."""

    def __init__(self, s: Tensor, t: Tensor, size: int) -> None:
        rows, n = s.shape
        groups = math.ceil(n / size)
        if n - (groups - 1) * size == 1 and groups > 1:
            groups -= 1  # one element alone belongs to the group before
        rank = torch.arange(n, device=s.device).expand(rows, n)
        if groups > 1:
            order = torch.sort((t - s) * (t - s), dim=1, stable=True).indices
            rank = torch.empty_like(order).scatter_(1, order, rank)
        self.number = (rank // size).clamp(max=groups - 1)
        self._place = torch.arange(rows, device=s.device)[:, None] * groups + self.number
        self._shape = rows, groups
        self.count = self.sum(torch.ones_like(s, dtype=torch.float64))

    def sum(self, x: Tensor) -> Tensor:
        """Over each group: (rows, groups)."""
        total = x.new_zeros(self._shape).flatten()
        return total.index_add_(0, self._place.flatten(), x.flatten()).view(self._shape)

    def largest(self, x: Tensor) -> Tensor:
        most = x.new_zeros(self._shape).flatten()
        most.scatter_reduce_(0, self._place.flatten(), x.abs().flatten(), "amax")
        return most.view(self._shape)

    def mean(self, x: Tensor) -> Tensor:
        return self.sum(x) / self.count

    def centre(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Means and x less them, twice, because the first ones are off by their rounding."""
        mean = self.mean(x)
        x = x - self.of_elements(mean)
        rest = self.mean(x)
        return mean + rest, x - self.of_elements(rest)

    def of_elements(self, x: Tensor) -> Tensor:
        """Each element's number out of its group's: (rows, n)."""
        return x.flatten()[self._place]


def oracle(
    student: Tensor,
    teacher: Tensor,
    *,
    group_size: int | None = None,
    num_groups: int | None = None,
    scope: str = "channel",
    norm: str = "l1",
    weight: str | float | Tensor = "adaptive",
    terms: str = "both",
    reduction: str = "mean",
    eps: float = 1e-7,
) -> Expected:
    """What docs/method.md says, in float64."""
    batch = student.shape[0]
    rows = math.prod(student.shape[: 2 if scope == "channel" else 1])
    n = student.numel() // rows if rows else 1
    size = math.ceil(n / num_groups) if num_groups else group_size or 16
    wide = torch.float64 if torch.float64 in (student.dtype, teacher.dtype) else torch.float32
    s, t = (x.detach().reshape(rows, n).to(wide) for x in (student, teacher))
    groups = Groups(s, t, size)
    s, t = s.double(), t.double()
    d, elements = t - s, max(rows * n, 1)

    (mean_s, ds), (mean_d, dd) = groups.centre(s), groups.centre(d)
    inverse = 1 / (groups.mean(ds * ds) + eps)
    off = (groups.mean(ds * dd) - eps) * inverse  # slope - 1
    a = mean_d - off * mean_s
    deviation = ((off.abs() + a.abs()) * groups.count).sum() / elements
    if norm == "l1":
        penalty, alpha, gamma = off.abs() + a.abs(), off.sign(), a.sign()
    else:
        penalty, alpha, gamma = off * off + a * a, 2 * off, 2 * a
    coarse = (penalty * groups.count).sum() / elements
    residual = groups.of_elements(off) * ds - dd
    fine = (residual * residual).sum() / elements
    adaptive = isinstance(weight, str)
    if adaptive:
        w = torch.ones_like(fine) if terms == "fine" else 1 - deviation.clamp(max=1)
    else:
        w = torch.as_tensor(weight, dtype=torch.float64, device=s.device)
    scale = n * rows // batch if reduction == "sum" and batch else 1
    loss = {"both": coarse + w * fine, "coarse": coarse, "fine": w * fine}[terms] * scale

    k = (alpha - gamma * mean_s) * inverse
    slope = groups.of_elements(off) + 1
    of_coarse = groups.of_elements(k) * (dd + (1 - 2 * slope) * ds)
    of_coarse = of_coarse - groups.of_elements(gamma) * slope
    of_fine = 2 * w * slope * residual
    grad = {"both": of_coarse + of_fine, "coarse": of_coarse, "fine": of_fine}[terms]
    grad = grad * (scale / elements)

    # First-order effect of errors `unit` of s and t.
    doubled = 2 if wide == torch.float64 else 1  # the oracle rounds as well
    unit = doubled * _ROUNDINGS * torch.finfo(wide).eps
    step = unit * groups.largest(s.abs() + t.abs())
    spread_s, spread_d = groups.largest(ds), groups.largest(dd)
    b_error = step * (spread_s + spread_d + step) * (1 + off.abs()) * inverse + unit * off.abs()
    a_error = step * (1 + off.abs()) + b_error * mean_s.abs()
    of_residual = step * (2 + off.abs()) + spread_s * b_error
    fine_error = groups.of_elements(of_residual) * 2 * residual.abs()
    fine_error = (fine_error + groups.of_elements(step * step)).sum() / elements
    near = norm == "l1" and terms != "fine"
    flips = (off.abs() <= b_error) | (a.abs() <= a_error) if near else torch.zeros_like(a).bool()
    if norm == "l1":
        coarse_error, bent, alpha, gamma = b_error + a_error, 0.0, 1.0, 1.0
    else:
        coarse_error = (2 * off.abs() + b_error) * b_error + (2 * a.abs() + a_error) * a_error
        bent, alpha, gamma = 2 * (b_error + a_error), 2 * off.abs(), 2 * a.abs()
    k = (alpha + gamma * mean_s.abs()) * inverse
    k_error = (bent * (1 + mean_s.abs()) + gamma * step) * inverse
    k_error = k_error + k * step * (spread_s + step) * inverse
    lever = spread_d + (3 + 2 * off.abs()) * spread_s
    grad_error = k_error * lever + k * (step * (4 + 2 * off.abs()) + 2 * b_error * spread_s)
    grad_error = grad_error + bent * (1 + off.abs()) + gamma * b_error
    grad_error = grad_error + 2 * (1 + off.abs()) * of_residual
    grad_error = torch.where(flips, torch.inf, grad_error)  # either sign is right
    coarse_error, deviation_error = (
        (error * groups.count).sum() / elements for error in (coarse_error, b_error + a_error)
    )
    w_error = deviation_error if adaptive and terms != "fine" else torch.zeros_like(fine)
    grad_error = groups.of_elements(grad_error) * (scale / elements)
    grad_error = grad_error + w_error * grad.abs()  # it moves the whole of the fine term's part

    return Expected(
        loss=loss,
        loss_error=(coarse_error + w * fine_error + w_error * fine) * scale,
        fit=Fit(off + 1, a, coarse, fine, w),
        coarse_error=coarse_error,
        fine_error=fine_error,
        weight_error=w_error,
        slope_error=b_error,
        group=groups.number.view(student.shape),
        grad=grad.view(student.shape),
        grad_error=grad_error.view(student.shape),
    )


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

    wide = loss.dtype
    assert wide == (
        torch.float64 if torch.float64 in (student.dtype, teacher.dtype) else torch.float32
    )
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
    smallest = SMALLEST.get(student.dtype, 0.0)
    grad_error = expected.grad_error * abs(grad_out) + smallest
    grad = expected.grad * grad_out
    # float16 ends at 65,504
    most, close = torch.finfo(student.dtype).max, tolerance * grad.abs().max() + grad_error
    overflow, fits = grad.abs() - close > most, grad.abs() + close < most
    assert torch.equal(student.grad[overflow], grad.to(student.dtype)[overflow])
    _close("gradient", student.grad[fits], grad[fits], tolerance, grad_error[fits])


def _close(name: str, actual: Tensor, expected: Tensor, relative: float, rounding):
    smallest = SMALLEST.get(actual.dtype, 0.0)
    actual, expected = actual.detach().double(), expected.double()
    assert actual.shape == expected.shape, name
    if not expected.numel():
        return
    allowed = relative * expected.abs().max() + rounding + smallest
    worst = ((actual - expected).abs() / allowed.clamp(min=1e-300)).max().item()
    assert worst <= 1, f"{name}: error is {worst:.3g} times what is allowed\n{actual}\n{expected}"
