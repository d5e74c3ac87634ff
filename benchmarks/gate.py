"""The correctness gate: nothing is timed that does not agree with the float64 reference.

The reference fits in float64, in groups sorted by the errors as float32 has them: in float64 nearly
equal errors fall in another order, which moves elements over the edges of groups. What is still
ambiguous is left out of the gradient's check: groups whose slope or intercept sits on the kink of
|b - 1| or |a|, where either sign is a valid derivative, and, for an op that breaks ties as it
likes, groups with equal errors across an edge.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.cases import Case
from benchmarks.implementations import YARDSTICKS, Implementation
from liftplace import reference
from liftplace._arguments import LossArguments

LOSS_TOLERANCE = 1e-5  # relative; losses are float32 whatever the input
FREE_TIES_LOSS_TOLERANCE = 5e-4  # where ties may fall to either side of a group's edge
# Error of a gradient entry, relative to the largest entry; gradients have the input's dtype.
GRADIENT_TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 8e-3, torch.float16: 1e-3}
KINK = 1e-5  # distance of b from 1 or a from 0 whose sign float32 may not tell
SMALLEST_SHARE = 0.9  # of the elements that must be comparable, or the gate proves nothing


class GateError(RuntimeError):
    """An implementation disagrees with the reference: no timing of it means anything."""


@dataclass(frozen=True)
class Expected:
    loss: Tensor  # 0-d float64
    gradient: Tensor  # float64
    smooth: Tensor  # bool: elements of groups off the kinks
    untied: Tensor  # bool: of these, elements of groups with no tie across an edge


def expected(case: Case, student: Tensor, teacher: Tensor) -> Expected:
    """Loss and gradient by `liftplace.reference` in float64, and where they can be compared."""
    rows = reference.split_rows(student, teacher, "channel")
    size = case.group_size or rows.length
    with torch.no_grad():
        s, t = reference.as_rows(student, teacher, rows)  # (rows, n)
        order = reference.order_by_error(s, t, size)
        error = (t - s).square().gather(1, order)
    s = s.double().requires_grad_()
    loss, fit = reference.loss_in_order(s, t.double(), order, rows, size, LossArguments())
    (gradient,) = torch.autograd.grad(loss, s)
    smooth = ((fit.slope - 1).abs() > KINK) & (fit.intercept.abs() > KINK)  # (rows, groups)
    edges = fit.slope.shape[1] - 1
    tied = error[:, size - 1 : -1 : size][:, :edges] == error[:, size::size][:, :edges]
    none = tied.new_zeros(rows.count, 1)
    untied = smooth & ~torch.cat([none, tied], 1) & ~torch.cat([tied, none], 1)
    number = (torch.arange(rows.length, device=order.device) // size).clamp(max=edges)
    group = torch.empty_like(order).scatter_(1, order, number.expand_as(order))
    smooth, untied = smooth.gather(1, group), untied.gather(1, group)
    shaped = (x.view(student.shape) for x in (gradient, smooth, untied))
    return Expected(loss.detach(), *shaped)


def check(
    implementation: Implementation, case: Case, student: Tensor, teacher: Tensor, want: Expected
) -> None:
    """Raise `GateError` unless loss and gradient agree with `want`."""
    if implementation.name in YARDSTICKS:
        return
    by_index = implementation.ties_by_index
    clear, loss_bound = (
        (want.smooth, LOSS_TOLERANCE) if by_index else (want.untied, FREE_TIES_LOSS_TOLERANCE)
    )
    share = clear.double().mean().item()
    if share < SMALLEST_SHARE:
        raise GateError(f"{case}: only {share:.1%} of the elements have an unambiguous gradient")
    loss = implementation.forward(student, teacher)
    gradient = implementation.gradient(loss, student).double()
    loss_error = ((loss.double() - want.loss) / want.loss).abs().item()
    difference = (gradient - want.gradient).abs().where(clear, 0)
    gradient_error = (difference.max() / want.gradient.abs().max()).item()
    gradient_bound = GRADIENT_TOLERANCE[case.dtype]
    finite = bool(gradient.isfinite().all())
    # Written so that NaN fails.
    if not (finite and loss_error <= loss_bound and gradient_error <= gradient_bound):
        raise GateError(
            f"{implementation.name} is wrong on {case}: relative error of the loss "
            f"{loss_error:.1e} (at most {loss_bound:.0e}), of the gradient {gradient_error:.1e} "
            f"(at most {gradient_bound:.0e}){'' if finite else ', gradient not finite'}"
        )
