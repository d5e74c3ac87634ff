"""impl="torch": the fit and its closed-form gradient as plain tensor operations, on any device.

Works on (rows, n) inputs without an autograd graph. What the backward needs is each element's group
number and six numbers a group (`coef`); rows are taken a few at a time, so that temporaries stay in
the cache and peak memory does not grow with the batch.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from liftplace._contract import (
    FINE_WEIGHT,
    MEAN_D,
    MEAN_S,
    SLOPE_LESS_1,
    C,
    Fitted,
    K,
    LossSum,
    Options,
    group_number,
    new_fitted,
)
from liftplace._weight import adaptive_weight

# Elements taken at once on a CPU. Fewer, and the overhead of each operation shows; more, and so do
# the temporaries in peak memory (`python -m benchmarks ops --device cpu`).
_CPU_BLOCK = 1 << 16


def unsupported_reason(student: Tensor, teacher: Tensor, length: int) -> None:
    """Nothing: it runs everywhere."""


def forward(
    student: Tensor, teacher: Tensor, fine_weight: Tensor | None, options: Options
) -> tuple[Tensor, Fitted]:
    """The loss and what was fitted; see `liftplace._contract`."""
    n = student.shape[1]
    group_size, eps, squared = options.group_size, options.eps, options.squared
    group, coef, stats = fitted = new_fitted(student, teacher, options)
    groups = coef.shape[2]
    number = torch.arange(n, device=student.device).div_(group_size, rounding_mode="floor")
    number = number.clamp_(max=groups - 1).to(group.dtype)
    sums = coef.new_zeros(3)
    for block in _row_blocks(student):
        s = student[block].to(coef.dtype, copy=groups == 1)  # _fit_sorted works in place
        d = torch.sub(teacher[block], s)
        if groups > 1:
            order = _order_by_error(d)
            s, d = s.gather(1, order), d.gather(1, order)
            if group.numel():
                group[block].scatter_(1, order, number.expand_as(order))
        sums += _fit_sorted(s, d, group_size, eps, squared, coef[:, block])
    # max: an empty batch gives 0
    coarse, fine, deviation = sums.div_(max(student.numel(), 1)).unbind()
    if fine_weight is not None:
        w = fine_weight.to(coarse)
    elif options.fixed_weight is not None:
        w = torch.full_like(coarse, options.fixed_weight)
    else:
        w = adaptive_weight(deviation, 1)
    torch.stack([coarse, fine, deviation, w], out=stats)
    return options.loss_sum.total(coarse, fine, w), fitted


def backward(
    student: Tensor, teacher: Tensor, fitted: Fitted, grad_out: Tensor, loss_sum: LossSum
) -> Tensor:
    """d loss / d student, (rows, n) in the student's dtype, from the closed form.

    With ds and dd the student and d = teacher - student less their group's mean:

        grad_out * scale / M * [k (dd + (1 - 2 b) ds) - c  +  2 w b ((b - 1) ds - dd)]

    with 1 - 2 b = -1 - 2 (b - 1), gathered here by what multiplies dd, ds and 1. Kept centred,
    because folded to s and t it cancels, and in d, because k may be 1 / eps and multiplies the
    rounding of the mean.
    """
    group, coef, stats = fitted
    unit = grad_out.to(coef.dtype) * (loss_sum.scale / max(student.numel(), 1))
    b_less_1, k, c = coef[SLOPE_LESS_1], coef[K], coef[C]
    of_dd, of_ds, of_one = (torch.zeros_like(k) for _ in range(3))
    if loss_sum.with_coarse:
        of_dd, of_ds, of_one = k, k * (-1 - 2 * b_less_1), -c
    if loss_sum.with_fine:
        pull = 2 * stats[FINE_WEIGHT] * (b_less_1 + 1)
        of_dd, of_ds = of_dd - pull, of_ds + pull * b_less_1
    mean_s, mean_d = coef[MEAN_S], coef[MEAN_D]
    of_dd, of_ds, of_one = of_dd * unit, of_ds * unit, of_one * unit
    grad = torch.empty_like(student)
    for block in _row_blocks(student):
        index = group_number(group[block]) if coef.shape[2] > 1 else None
        s = student[block].to(coef.dtype)
        out = torch.sub(teacher[block], s).sub_(_of_element(mean_d[block], index))
        out.mul_(_of_element(of_dd[block], index)).add_(_of_element(of_one[block], index))
        out.addcmul_(s.sub(_of_element(mean_s[block], index)), _of_element(of_ds[block], index))
        grad[block] = out
    return grad


def _of_element(plane: Tensor, index: Tensor | None) -> Tensor:
    """Each element's number out of its group's, (rows, groups); one group a row broadcasts."""
    return plane if index is None else plane.gather(1, index)


def _row_blocks(x: Tensor) -> Iterator[slice]:
    rows, n = x.shape
    step = max(1, _CPU_BLOCK // n) if x.device.type == "cpu" else max(1, rows)
    return (slice(start, start + step) for start in range(0, rows, step))


def _order_by_error(d: Tensor) -> Tensor:
    """Indices that sort each row of d (rows, n) by d^2, ties by index."""
    error = d.square()
    if d.device.type != "cpu" or d.dtype != torch.float32:
        return torch.sort(error, dim=1, stable=True).indices
    # A float's bits order as it does, so (bits, index) packed into one integer is a unique key;
    # NumPy sorts those in place, 2 to 5 times as fast as a stable argsort.
    keys = error.view(torch.int32).to(torch.int64).bitwise_and_(0x7FFFFFFF).bitwise_left_shift_(32)
    keys.bitwise_or_(torch.arange(d.shape[1], device=d.device))
    keys.numpy().sort(axis=1)
    return keys.bitwise_and_(0xFFFFFFFF)


def _fit_sorted(s: Tensor, d: Tensor, size: int, eps: float, squared: bool, coef: Tensor) -> Tensor:
    """Fit groups of `size` consecutive elements, the last one of what is left; fill coef, return
    the sums.

    Overwrites s and d: fresh memory costs more here than arithmetic.
    """
    rows, n = s.shape
    groups = coef.shape[2]
    whole = groups if groups * size == n else groups - 1
    split = whole * size
    equal_s, equal_d = (x[:, :split].view(rows, whole, size) for x in (s, d))
    sums = _fit_groups(equal_s, equal_d, eps, squared, coef[:, :, :whole])
    if split < n:
        last_s, last_d = s[:, None, split:], d[:, None, split:]
        sums += _fit_groups(last_s, last_d, eps, squared, coef[:, :, whole:])
    return sums


def _fit_groups(s: Tensor, d: Tensor, eps: float, squared: bool, coef: Tensor) -> Tensor:
    """Fit t = s + d on s over the last axis; sums over elements of coarse, fine and D, (3,).

    Written in d, not t: b - 1 = (cov(s, d) - eps) / (var s + eps) and a = mean d - (b - 1) mean s
    keep their digits where the student is good and b -> 1, a -> 0.
    """
    size = s.shape[-1]
    mean_s, mean_d = _centre_(s), _centre_(d)
    product = s * s
    variance = product.mean(-1)
    inverse = 1 / (variance + eps)
    b_less_1 = (torch.mul(s, d, out=product).mean(-1) - eps) * inverse
    b_less_1 += variance - variance  # NaN, where it overflows, for a slope of 1
    a = mean_d - b_less_1 * mean_s
    deviation = b_less_1.abs() + a.abs()
    if squared:
        coarse, alpha, gamma = b_less_1.square() + a.square(), 2 * b_less_1, 2 * a
    else:
        coarse, alpha, gamma = deviation, b_less_1.sign(), a.sign()
    k, c = (alpha - gamma * mean_s) * inverse, gamma * (b_less_1 + 1)
    for plane, value in zip(coef, (b_less_1, a, mean_s, mean_d, k, c), strict=True):
        plane.copy_(value)
    residual = d.addcmul_(b_less_1.unsqueeze(-1), s, value=-1)
    return torch.stack([coarse.sum() * size, residual.square_().sum(), deviation.sum() * size])


def _centre_(x: Tensor) -> Tensor:
    """Subtract from x its mean over the last axis, in place; return the mean.

    Centred twice: the first mean of equal large numbers is off by its rounding, whose square would
    stand against eps where the variance is 0.
    """
    mean = x.mean(-1, keepdim=True)
    rest = x.sub_(mean).mean(-1, keepdim=True)
    x.sub_(rest)
    return (mean + rest).squeeze(-1)
