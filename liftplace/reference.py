"""The specification: LIFT and PLACE in plain, differentiable PyTorch.

After "LIFT and PLACE" (Han, Yeo, Yoo; CVPR 2026; arXiv 2605.19729). Symbols: s the student's output
(epsilon^S), t the teacher's (epsilon^T), b the slope (beta_1), a the intercept (beta_0), e the
error, w the adaptive weight. A row is one channel of one sample, or one sample. LIFT fits t on s
once a row; PLACE sorts a row by error and fits in groups. Every other implementation computes what
stands here, faster.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from liftplace._arguments import (
    LossArguments,
    Rows,
    check_eps,
    check_options,
    group_count,
    group_length,
    split_rows,
)
from liftplace._contract import accumulation_dtype
from liftplace._weight import fine_weight


class Fit(NamedTuple):
    """What a loss fitted, detached.

    slope (beta_1) and intercept (beta_0) have shape (rows, groups). coarse, fine and weight are
    0-d: the batch's two terms before `reduction` scales them, and the weight w.
    """

    slope: Tensor
    intercept: Tensor
    coarse: Tensor
    fine: Tensor
    weight: Tensor


class LinearFit(NamedTuple):
    """slope and intercept, (rows, groups); group, (*student.shape), each element's group number."""

    slope: Tensor
    intercept: Tensor
    group: Tensor


def lift_loss(
    student: Tensor,
    teacher: Tensor,
    *,
    scope: str = "channel",
    norm: str = "l1",
    weight: str | float | Tensor = "adaptive",
    terms: str = "both",
    reduction: str = "mean",
    eps: float = 1e-7,
    process_group=None,
    return_fit: bool = False,
) -> Tensor | tuple[Tensor, Fit]:
    """LIFT, the paper's linear-fit loss: PLACE with one group a row. See `place_loss`."""
    arguments = LossArguments(scope, norm, weight, terms, reduction, eps, process_group)
    loss, fit = fitted_loss(student, teacher, None, 1, arguments)
    return (loss, fit) if return_fit else loss


def place_loss(
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
    process_group=None,
    return_fit: bool = False,
) -> Tensor | tuple[Tensor, Fit]:
    """PLACE, the paper's loss in groups sorted by error.

    Arguments, results and errors are those of `liftplace.place_loss`, which differs only in `impl`.
    """
    arguments = LossArguments(scope, norm, weight, terms, reduction, eps, process_group)
    loss, fit = fitted_loss(student, teacher, group_size, num_groups, arguments)
    return (loss, fit) if return_fit else loss


def linear_fit(
    student: Tensor,
    teacher: Tensor,
    *,
    group_size: int | None = None,
    num_groups: int | None = None,
    scope: str = "channel",
    eps: float = 1e-7,
) -> LinearFit:
    """The fit t ~ a + b s alone: one a row, or one a group of elements sorted by error."""
    rows = split_rows(student, teacher, scope)
    if group_size is None and num_groups is None:
        num_groups = 1
    size = group_length(group_size, num_groups, rows.length)
    check_eps(eps)
    s, t = as_rows(student, teacher, rows)
    order = order_by_error(s, t, size)
    sizes = group_sizes(s, size)
    b_less_1, a = fit_groups(cut(s, order, size), cut(t, order, size), sizes, eps)
    position = torch.arange(rows.length, device=order.device).expand_as(order)
    group = torch.empty_like(order).scatter_(1, order, position) // size
    group = group.clamp(max=b_less_1.shape[1] - 1)
    return LinearFit(b_less_1 + 1, a, group.view(student.shape))


def fitted_loss(
    student: Tensor,
    teacher: Tensor,
    group_size: int | None,
    num_groups: int | None,
    arguments: LossArguments,
) -> tuple[Tensor, Fit]:
    """The loss and what was fitted, from the arguments of `place_loss`."""
    rows = split_rows(student, teacher, arguments.scope)
    size = group_length(group_size, num_groups, rows.length)
    check_options(arguments)
    s, t = as_rows(student, teacher, rows)
    return loss_in_order(s, t, order_by_error(s, t, size), rows, size, arguments)


def as_rows(student: Tensor, teacher: Tensor, rows: Rows) -> tuple[Tensor, Tensor]:
    """Both inputs as (rows, n) in the accumulation dtype."""
    dtype = accumulation_dtype(student, teacher)
    shape = (rows.count, rows.length)
    return student.to(dtype).reshape(shape), teacher.to(dtype).reshape(shape)


def order_by_error(s: Tensor, t: Tensor, size: int) -> Tensor:
    """Indices (rows, n) that sort a row by e = (t - s)^2, ascending, ties by index (PLACE).

    One group a row (LIFT) needs no order.
    """
    if size >= s.shape[1]:
        return torch.arange(s.shape[1], device=s.device).expand(s.shape)
    return torch.sort((t - s).detach().square(), dim=1, stable=True).indices


def cut(x: Tensor, order: Tensor, size: int) -> Tensor:
    """x (rows, n) in sorted order, cut to (rows, groups, largest); zeros fill smaller groups."""
    x = x.gather(1, order)
    groups = group_count(x.shape[1], size)
    if x.shape[1] <= groups * size:
        return F.pad(x, (0, groups * size - x.shape[1])).unflatten(1, (groups, size))
    last = F.pad(x[:, -1:], (groups - 1, 0))  # one element more in the last group
    return torch.cat([x[:, :-1].unflatten(1, (groups, size)), last[..., None]], 2)


def group_sizes(x: Tensor, size: int) -> Tensor:
    """Elements in each group of x (rows, n), the last one what is left of the row: (groups,)."""
    n, groups = x.shape[1], group_count(x.shape[1], size)
    number = torch.arange(groups, device=x.device)
    return torch.where(number < groups - 1, size, n - (groups - 1) * size).to(x.dtype)


def fit_groups(s: Tensor, t: Tensor, sizes: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Least squares of t on s, both (rows, groups, largest): b - 1 and intercept a, (rows, groups).

    The paper has b = cov(s, t) / (var s + eps) and a = mean t - b mean s. With d = t - s that is
    b - 1 = (cov(s, d) - eps) / (var s + eps) and a = mean d - (b - 1) mean s: the same numbers, but
    they keep their digits where the student is good and b -> 1, a -> 0.
    """
    (mean_s, ds), (mean_d, dd) = centre(s, sizes), centre(t - s, sizes)
    variance = (ds * ds).sum(2) / sizes
    b_less_1 = ((ds * dd).sum(2) / sizes - eps) / (variance + eps)
    b_less_1 = b_less_1 + (variance - variance).detach()  # NaN, where it overflows, for b = 1
    return b_less_1, mean_d - b_less_1 * mean_s


def residuals(s: Tensor, t: Tensor, sizes: Tensor, b_less_1: Tensor) -> Tensor:
    """a + b s - t in each group, with a and b constants: (rows, groups, largest).

    As (b - 1) ds - dd, about the means, because a + b s - t cancels where s is large; its slope
    along s is b.
    """
    b_less_1 = b_less_1.detach()[..., None]
    (_, ds), (_, dd) = centre(s.detach(), sizes), centre((t - s).detach(), sizes)
    return b_less_1 * ds - dd + (b_less_1 + 1) * (s - s.detach())


def centre(x: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor]:
    """Means of x (rows, groups, largest) over each group, and x less them, 0 outside of the groups.

    Twice: the first mean of equal large numbers is off by its rounding, whose square would stand
    against eps where the variance is 0.
    """
    inside = torch.arange(x.shape[2], device=x.device) < sizes[:, None]  # (groups, largest)
    mean = x.sum(2) / sizes
    rest = ((x - mean[..., None]) * inside).sum(2) / sizes
    return mean + rest, (x - mean[..., None] - rest[..., None]) * inside


def loss_in_order(
    s: Tensor, t: Tensor, order: Tensor, rows: Rows, size: int, arguments: LossArguments
) -> tuple[Tensor, Fit]:
    """loss = coarse + w * fine of s, t (rows, n), grouped along `order` (rows, n)."""
    _, norm, weight, terms, reduction, eps, process_group = arguments
    phi = torch.abs if norm == "l1" else torch.square
    sizes = group_sizes(s, size)
    s, t = cut(s, order, size), cut(t, order, size)
    b_less_1, a = fit_groups(s, t, sizes, eps)
    count = max(rows.count * rows.length, 1)  # an empty batch gives 0
    coarse = ((phi(b_less_1) + phi(a)) * sizes).sum() / count
    fine = residuals(s, t, sizes, b_less_1).square().sum() / count
    deviation = ((b_less_1.abs() + a.abs()) * sizes).sum() / count
    w = fine_weight(weight, terms, deviation, rows.batch, process_group)
    loss = {"both": coarse + w * fine, "coarse": coarse, "fine": w * fine}[terms]
    if reduction == "sum":  # over a sample; the batch is averaged
        loss = loss * rows.sample_length
    fit = (x.detach().clone() for x in (b_less_1 + 1, a, coarse, fine, w))  # the caller's own
    return loss, Fit(*fit)
