"""lift_loss, place_loss and linear_fit: check the arguments, choose an implementation, call it."""

from typing import Literal, TypedDict, Unpack, overload

import torch
from torch import Tensor

from liftplace import _dispatch, reference
from liftplace._arguments import (
    LossArguments,
    Rows,
    check_eps,
    check_options,
    group_length,
    split_rows,
)
from liftplace._autograd import (
    PlaceFunction,
    PlaceFunctionWithTangent,
    has_tangent,
    in_memory,
)
from liftplace._contract import (
    INTERCEPT,
    SLOPE_LESS_1,
    Fitted,
    LossSum,
    Options,
    accumulation_dtype,
    group_number,
)
from liftplace._weight import adaptive_weight
from liftplace.reference import Fit, LinearFit


class LiftOptions(TypedDict, total=False):
    """The options of `lift_loss`, for type checkers, but for `return_fit`."""

    scope: str
    norm: str
    weight: str | float | Tensor
    terms: str
    reduction: str
    eps: float
    process_group: torch.distributed.ProcessGroup | None
    impl: str


class PlaceOptions(LiftOptions, total=False):
    """The options of `place_loss`, likewise."""

    group_size: int | None
    num_groups: int | None


@overload
def lift_loss(
    student: Tensor,
    teacher: Tensor,
    *,
    return_fit: Literal[False] = False,
    **options: Unpack[LiftOptions],
) -> Tensor: ...
@overload
def lift_loss(
    student: Tensor, teacher: Tensor, *, return_fit: Literal[True], **options: Unpack[LiftOptions]
) -> tuple[Tensor, Fit]: ...
@overload
def lift_loss(
    student: Tensor, teacher: Tensor, *, return_fit: bool, **options: Unpack[LiftOptions]
) -> Tensor | tuple[Tensor, Fit]: ...
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
    process_group: torch.distributed.ProcessGroup | None = None,
    impl: str = "auto",
    return_fit: bool = False,
) -> Tensor | tuple[Tensor, Fit]:
    """Distillation loss that fits the teacher's output linearly on the student's, once a row.

    Takes the place of `F.mse_loss(student, teacher)`. With b, a the least-squares slope and
    intercept of teacher on student in each row and r the residual, it is

        coarse = (b - 1).abs().mean() + a.abs().mean()
        w = 1 - min(1, coarse)
        loss = coarse + w * r.square().mean()

    Arguments, results and errors as in `place_loss`. Source: arXiv 2605.19729, LIFT.
    """
    arguments = LossArguments(scope, norm, weight, terms, reduction, eps, process_group)
    return _loss(student, teacher, None, 1, arguments, impl, return_fit)


@overload
def place_loss(
    student: Tensor,
    teacher: Tensor,
    *,
    return_fit: Literal[False] = False,
    **options: Unpack[PlaceOptions],
) -> Tensor: ...
@overload
def place_loss(
    student: Tensor, teacher: Tensor, *, return_fit: Literal[True], **options: Unpack[PlaceOptions]
) -> tuple[Tensor, Fit]: ...
@overload
def place_loss(
    student: Tensor, teacher: Tensor, *, return_fit: bool, **options: Unpack[PlaceOptions]
) -> Tensor | tuple[Tensor, Fit]: ...
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
    process_group: torch.distributed.ProcessGroup | None = None,
    impl: str = "auto",
    return_fit: bool = False,
) -> Tensor | tuple[Tensor, Fit]:
    """`lift_loss` with one fit for each group of elements of similar error.

    Takes the place of `F.mse_loss(student, teacher)`. Each row is sorted by (teacher - student)^2,
    ties by index, and cut into groups of `group_size`; the last may be smaller. With b, a the slope
    and intercept of each group and r the residual (`liftplace.reference` is the definition):

        coarse = weighted mean over groups of phi(b - 1) + phi(a)
        w = 1 - min(1, weighted mean over groups of |b - 1| + |a|)
        loss = coarse + w * r.square().mean()

    The gradient treats the teacher, w and the grouping as constants, and a and b too in the
    residual. It has no double backward, except with `impl="reference"`.

    Args:
        student: (B, C, *spatial), or (B, *) for `scope="sample"`; float32, bfloat16, float16 or
            float64, any strides. An empty batch gives 0.
        teacher: the student's shape and device; its dtype may differ. Must not require grad.
        group_size: elements a group, at least 2; 16 (the paper's) without `num_groups`.
        num_groups: instead: equal groups a row. Where it does not divide a row, groups of
            ceil(n / num_groups) elements.
        scope: rows are "channel": one channel of one sample, or "sample": one sample.
        norm: phi of the coarse term, "l1" (absolute value) or "l2" (square).
        weight: w, "adaptive" or a float in [0, 1] or a 0-d tensor (not checked: no host sync).
        terms: "both", "coarse" or "fine". With "fine" there is no coarse fit to wait for, so the
            adaptive w is 1.
        reduction: "mean" over elements, or "sum" over a sample's elements, averaged over the batch.
        eps: added to the variance of the student in a group.
        process_group: average the deviation behind w over these ranks, so that a run does not
            depend on how its batch is split.
        impl: "auto" (the fastest that fits), "triton", "cuda", "native", "torch" or "reference".
        return_fit: also return what was fitted.

    Returns:
        The loss, 0-d float32 (float64 for float64 input); with `return_fit` also a `Fit` with
        slope and intercept (rows, groups) and coarse, fine and weight (0-d), all detached.

    Raises:
        TypeError, ValueError: an argument is not as above.
        RuntimeError: `impl` is named and cannot run here.

    Source: arXiv 2605.19729, PLACE.
    """
    arguments = LossArguments(scope, norm, weight, terms, reduction, eps, process_group)
    return _loss(student, teacher, group_size, num_groups, arguments, impl, return_fit)


def linear_fit(
    student: Tensor,
    teacher: Tensor,
    *,
    group_size: int | None = None,
    num_groups: int | None = None,
    scope: str = "channel",
    eps: float = 1e-7,
    impl: str = "auto",
) -> LinearFit:
    """The least-squares fit teacher ~ intercept + slope * student, without a loss or a gradient.

    Args as in `place_loss`; neither `group_size` nor `num_groups` means one fit a row.

    Returns:
        A `LinearFit`: slope and intercept (rows, groups), and group, int64 in the student's shape,
        the group number of each element in order of its error.
    """
    rows = split_rows(student, teacher, scope)
    if group_size is None and num_groups is None:
        num_groups = 1
    size = group_length(group_size, num_groups, rows.length)
    check_eps(eps)
    impl = _dispatch.choose(impl, student, teacher, rows.length)
    if impl == "reference":
        with torch.no_grad():
            cut = {"group_size": group_size, "num_groups": num_groups}
            return reference.linear_fit(student, teacher, **cut, scope=scope, eps=eps)
    s, t = _as_rows(student, rows), _as_rows(teacher, rows)
    _, fitted = _dispatch.forward(impl, s, t, None, Options(size, float(eps), fixed_weight=0.0))
    if size >= rows.length:
        number = torch.zeros(student.shape, dtype=torch.int64, device=student.device)
    else:
        number = group_number(fitted.group).view(student.shape)
    return LinearFit(fitted.coef[SLOPE_LESS_1] + 1, fitted.coef[INTERCEPT], number)


def _loss(
    student: Tensor,
    teacher: Tensor,
    group_size: int | None,
    num_groups: int | None,
    arguments: LossArguments,
    impl: str,
    return_fit: bool,
) -> Tensor | tuple[Tensor, Fit]:
    rows = split_rows(student, teacher, arguments.scope)
    size = group_length(group_size, num_groups, rows.length)
    check_options(arguments)
    if has_tangent(teacher):
        raise ValueError(
            "teacher has a tangent of forward-mode AD, but the teacher is a constant of the loss: "
            "pass teacher.detach()"
        )
    impl = _dispatch.choose(impl, student, teacher, rows.length)
    if impl == "reference":
        loss, fit = reference.fitted_loss(student, teacher, group_size, num_groups, arguments)
        return (loss, fit) if return_fit else loss
    s, t = _as_rows(student, rows), _as_rows(teacher, rows)
    dual = has_tangent(student)
    needs_grad = dual or torch.is_grad_enabled() and student.requires_grad
    fine_weight, fixed_weight = _fine_weight(arguments, s, accumulation_dtype(s, t))
    options = Options(
        group_size=size,
        eps=float(arguments.eps),
        squared=arguments.norm == "l2",
        fixed_weight=fixed_weight,
        loss_sum=_loss_sum(arguments, rows),
        with_groups=needs_grad,
    )
    loss, fitted = _dispatch.forward(impl, s, t, fine_weight, options)
    adaptive = fine_weight is None and fixed_weight is None
    if adaptive and arguments.process_group is not None:
        loss, fitted = _reweigh(fitted, rows, arguments.process_group, options.loss_sum)
    if needs_grad:
        function = PlaceFunctionWithTangent if dual else PlaceFunction
        loss = function.apply(student, t, (loss, *fitted), impl, options.loss_sum)
    return (loss, _fit(fitted)) if return_fit else loss


def _as_rows(x: Tensor, rows: Rows) -> Tensor:
    return in_memory(x.detach().reshape(rows.count, rows.length))


def _loss_sum(arguments: LossArguments, rows: Rows) -> LossSum:
    terms = arguments.terms
    scale = rows.sample_length if arguments.reduction == "sum" else 1
    return LossSum(with_coarse=terms != "fine", with_fine=terms != "coarse", scale=scale)


def _fine_weight(
    arguments: LossArguments, like: Tensor, dtype: torch.dtype
) -> tuple[Tensor | None, float | None]:
    """w as a tensor, as a number, or neither: adaptive."""
    weight = arguments.weight
    if isinstance(weight, Tensor):
        return weight.detach().to(like.device, dtype), None
    if weight == "adaptive":
        return None, 1.0 if arguments.terms == "fine" else None
    if torch.compiler.is_compiling():  # which would compile anew for every number
        return torch.full((), weight, dtype=dtype, device=like.device), None
    return None, float(weight)


def _reweigh(fitted: Fitted, rows: Rows, process_group, loss_sum: LossSum) -> tuple[Tensor, Fitted]:
    """Recompute w and the loss with the deviation averaged over the ranks."""
    coarse, fine, deviation, _ = fitted.stats.unbind()
    w = adaptive_weight(deviation, rows.batch, process_group)
    stats = torch.stack([coarse, fine, deviation, w])
    return loss_sum.total(coarse, fine, w), Fitted(fitted.group, fitted.coef, stats)


def _fit(fitted: Fitted) -> Fit:
    """Copies, so that a caller may change them (an all_reduce for a log): the backward reads what
    was fitted."""
    coarse, fine, _, w = fitted.stats.clone()
    slope, intercept = fitted.coef[SLOPE_LESS_1] + 1, fitted.coef[INTERCEPT].clone()
    return Fit(slope, intercept, coarse, fine, w)
