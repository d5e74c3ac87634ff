"""Forward, combine and backward of the launchers in one call, and their check against float64."""

from typing import NamedTuple

import torch
from torch import Tensor

from liftplace.kernels.combine import combine
from liftplace.kernels.lift import lift_bwd, lift_fwd
from liftplace.kernels.place import place_bwd, place_fwd
from tests import oracle as spec

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
RELATIVE = spec.TOLERANCE[torch.float32]


class Run(NamedTuple):
    """What the kernels gave; group is the decoded number, or None for LIFT."""

    loss: Tensor
    group: Tensor | None
    coef: Tensor
    terms: Tensor
    grad: Tensor


def run(student: Tensor, teacher: Tensor, size: int | None = None, *, launch=None, norm="l1",
        terms="both", weight="adaptive", eps=1e-7, scale=1.0, grad_out=1.0) -> Run:  # fmt: skip
    """LIFT (no `size`) or PLACE on (rows, n) tensors."""
    fit = {"eps": eps, "squared": norm == "l2", "launch": launch}
    wanted = {"scale": scale, "with_coarse": terms != "fine", "with_fine": terms != "coarse"}
    if size is None:
        group, (coef, partial) = None, lift_fwd(student, teacher, **fit)
    else:
        group, coef, partial = place_fwd(student, teacher, group_size=size, with_groups=True, **fit)
    given = torch.tensor(weight, device=student.device) if weight != "adaptive" else None
    fixed = 1.0 if terms == "fine" and given is None else None
    loss, values = combine(partial, count=student.numel(), weight=given, fixed=fixed, **wanted)
    grad_out = torch.tensor(grad_out, device=student.device)
    if size is None:
        grad = lift_bwd(student, teacher, coef, values, grad_out, **wanted)
    else:
        grad = place_bwd(student, teacher, group, coef, values, grad_out, **wanted)
        group = group.long() & 0xFFFF if group.dtype == torch.int16 else group.long()
    return Run(loss, group, coef, values, grad)


def assert_agrees(student: Tensor, teacher: Tensor, size: int | None = None, *, launch=None,
                  grad_out=1.0, **options) -> Run:  # fmt: skip
    """Loss, terms, slopes and gradient agree with the float64 oracle, group numbers exactly."""
    actual = run(student, teacher, size, launch=launch, grad_out=grad_out, **options)
    grouping = {"num_groups": 1} if size is None else {"group_size": size}
    expected = spec.oracle(student[None], teacher[None], **grouping, **options)  # one sample
    coarse, fine, _, weight = actual.terms
    close("loss", actual.loss, expected.loss, RELATIVE, expected.loss_error)
    close("coarse", coarse, expected.fit.coarse, RELATIVE, expected.coarse_error)
    close("fine", fine, expected.fit.fine, RELATIVE, expected.fine_error)
    close("weight", weight, expected.fit.weight, RELATIVE, expected.weight_error)
    close("slope", actual.coef[0], expected.fit.slope, RELATIVE, expected.slope_error)
    relative = spec.GRAD_TOLERANCE[student.dtype]
    smallest = 6e-8 if student.dtype == torch.float16 else 0.0  # float16 has no smaller number
    rounding = expected.grad_error[0] * abs(grad_out) + smallest
    assert actual.grad.dtype == student.dtype
    close("gradient", actual.grad, expected.grad[0] * grad_out, relative, rounding)
    if size is not None:
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
    """The group of each element, int64 (rows, n): its rank by error // size."""
    order = sorted_order(student, teacher)
    rank = torch.arange(order.shape[1], device=order.device).expand_as(order)
    return torch.empty_like(order).scatter_(1, order, rank) // size


def few_programs(device: str) -> dict:
    """Choices for `place_launch`: wide tiles for the interpreter's sake; a GPU keeps its own."""
    return {"chunk": 1 << 14, "tile": 1 << 17} if device == "cpu" else {}


def pair(rows: int, n: int, device: str, dtype=torch.float32, teacher_dtype=None):
    """A student and a teacher that follows it, with noise."""
    student = torch.randn(rows, n)
    teacher = 0.9 * student + 0.05 + 0.2 * torch.randn(rows, n)
    return student.to(device, dtype), teacher.to(device, teacher_dtype or dtype)
