"""Forward and backward of an implementation's `op` module in one call, and the check of both."""

from typing import NamedTuple

import torch
from torch import Tensor

from liftplace._contract import SLOPE_LESS_1, LossSum, Options, group_number
from tests import oracle as spec

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
RELATIVE = spec.TOLERANCE[torch.float32]


class Run(NamedTuple):
    """What an op computed; group is the decoded number, or None for one group a row."""

    loss: Tensor
    group: Tensor | None
    coef: Tensor
    stats: Tensor
    grad: Tensor


def options_of(size: int, *, norm="l1", terms="both", scale=1, **others) -> Options:
    """The options of a forward by their names in `place_loss`; others as in `Options`."""
    loss_sum = LossSum(terms != "fine", terms != "coarse", scale)
    return Options(size, squared=norm == "l2", loss_sum=loss_sum, **others)


def run(op, student: Tensor, teacher: Tensor, size, *, weight, grad_out=1.0, **options) -> Run:
    """LIFT (no `size`) or PLACE on (rows, n) tensors; `weight`: "adaptive", a number, a tensor."""
    fine_weight = weight if isinstance(weight, Tensor) else None
    fixed_weight = weight if isinstance(weight, float) else None
    if weight == "adaptive" and options.get("terms") == "fine":
        fixed_weight = 1.0
    options = options_of(size or student.shape[1], fixed_weight=fixed_weight, **options)
    loss, fitted = op.forward(student, teacher, fine_weight, options)
    grad, grad_out = torch.empty(0), torch.tensor(grad_out, device=student.device)
    if options.with_groups:
        grad = op.backward(student, teacher, fitted, grad_out, options.loss_sum)
    group, coef, stats = fitted
    return Run(loss, group_number(group) if group.numel() else None, coef, stats, grad)


def check(actual: Run, student: Tensor, teacher: Tensor, size, *, grad_out=1.0, **options) -> Run:
    """Loss, terms, slopes and gradient agree with the float64 oracle, group numbers exactly."""
    if isinstance(options.get("weight"), Tensor):
        options["weight"] = options["weight"].item()
    cut = {"num_groups": 1} if size is None else {"group_size": size}
    expected = spec.oracle(student[None], teacher[None], **cut, **options)  # one sample
    coarse, fine, _, weight = actual.stats
    close("loss", actual.loss, expected.loss, RELATIVE, expected.loss_error)
    close("coarse", coarse, expected.fit.coarse, RELATIVE, expected.coarse_error)
    close("fine", fine, expected.fit.fine, RELATIVE, expected.fine_error)
    close("weight", weight, expected.fit.weight, RELATIVE, expected.weight_error)
    close(
        "slope", actual.coef[SLOPE_LESS_1] + 1, expected.fit.slope, RELATIVE, expected.slope_error
    )
    relative = spec.GRAD_TOLERANCE[student.dtype]
    smallest = 6e-8 if student.dtype == torch.float16 else 0.0  # float16 has no smaller number
    rounding = expected.grad_error[0] * abs(grad_out) + smallest
    assert actual.grad.dtype == student.dtype
    close("gradient", actual.grad, expected.grad[0] * grad_out, relative, rounding)
    if actual.group is not None:
        assert torch.equal(actual.group, group_numbers(student, teacher, size))
    return actual


def close(name: str, actual: Tensor, expected: Tensor, relative: float, rounding=0.0) -> None:
    """|actual - expected| within `relative` of the largest expected entry, plus `rounding`."""
    assert actual.shape == expected.shape, name
    error = (actual.double() - expected).abs()
    allowed = relative * expected.abs().max() + rounding
    assert (error <= allowed).all(), f"{name}: {actual} instead of {expected}"


def sorted_order(student: Tensor, teacher: Tensor) -> Tensor:
    """What a stable sort of the float32 errors gives, (rows, n)."""
    error = (teacher.float() - student.float()).square()
    return torch.sort(error, dim=1, stable=True).indices


def group_numbers(student: Tensor, teacher: Tensor, size: int) -> Tensor:
    """The group of each element, int64 (rows, n): its rank by error // size, and one element that
    is left alone belongs to the group before."""
    order = sorted_order(student, teacher)
    n = order.shape[1]
    rank = torch.arange(n, device=order.device).expand_as(order)
    number = torch.empty_like(order).scatter_(1, order, rank) // size
    return number.clamp(max=n // size - 1) if n % size == 1 else number


def pair(rows: int, n: int, device: str, dtype=torch.float32, teacher_dtype=None):
    """A student and a teacher that follows it, with noise."""
    student = torch.randn(rows, n)
    teacher = 0.9 * student + 0.05 + 0.2 * torch.randn(rows, n)
    return student.to(device, dtype), teacher.to(device, teacher_dtype or dtype)
