"""The contract of the implementations: what each one takes and gives.

An implementation is a module with three functions:

    unsupported_reason(student, teacher, length) -> str | None
    forward(student, teacher, fine_weight, options) -> loss, Fitted
    backward(student, teacher, fitted, grad_out, loss_sum) -> gradient

student, teacher: (rows, n), contiguous; float32, bfloat16 or float16, each its own. Only
impl="torch" also takes float64. fine_weight: w as a 0-d tensor, or None. grad_out: 0-d. loss: 0-d.
gradient: d loss / d student, (rows, n) in the student's dtype. Fits, sums and the loss have the
accumulation dtype. No two outputs of a forward share memory.

`unsupported_reason` says why an implementation cannot run on rows of `length` elements of two
tensors, and returns None if it can.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from liftplace._arguments import group_count

# Planes of `Fitted.coef`. The slope less 1 keeps the digits that the slope would round away where
# the student is good; K and C are the coarse term's share of the gradient.
SLOPE_LESS_1, INTERCEPT, MEAN_S, MEAN_D, K, C = range(6)
# Entries of `Fitted.stats`. DEVIATION is D, the mean of |slope - 1| + |intercept|.
COARSE, FINE, DEVIATION, FINE_WEIGHT = range(4)
# Two bytes hold a group number while a row has no more groups: above 32,767 as a bit pattern.
MAX_INT16_GROUPS = 1 << 16


class LossSum(NamedTuple):
    """loss = scale * (coarse + fine_weight * fine), or of one of the two terms alone."""

    with_coarse: bool = True
    with_fine: bool = True
    scale: int = 1  # the elements of a sample for reduction="sum"

    def total(self, coarse: Tensor, fine: Tensor, fine_weight: Tensor) -> Tensor:
        loss = fine_weight * fine if self.with_fine else torch.zeros_like(fine)
        return (coarse + loss if self.with_coarse else loss) * self.scale


class Options(NamedTuple):
    """What a forward computes; a `group_size` of n - 1 or more means one group a row."""

    group_size: int  # of all groups but the last, see `group_count`
    eps: float = 1e-7
    squared: bool = False  # norm="l2"
    fixed_weight: float | None = None  # w as a number; adaptive where no tensor is passed either
    loss_sum: LossSum = LossSum()
    with_groups: bool = True  # whether anything will read the group numbers


class Fitted(NamedTuple):
    """What the backward needs beside the inputs.

    group: (rows, n), each element's group; read it with `group_number`. Empty, (0,), for one group
        a row and where `Options.with_groups` is False.
    coef: (6, rows, groups), the planes named above.
    stats: (4,), the entries named above; coarse and fine before `LossSum` scales them.
    """

    group: Tensor
    coef: Tensor
    stats: Tensor


def accumulation_dtype(student: Tensor, teacher: Tensor) -> torch.dtype:
    """float64 if either input is, else float32: the dtype of every fit, sum and loss."""
    return torch.float64 if torch.float64 in (student.dtype, teacher.dtype) else torch.float32


def new_fitted(student: Tensor, teacher: Tensor, options: Options) -> Fitted:
    """Memory for the results of a forward, not yet filled."""
    rows, n = student.shape
    groups = group_count(n, options.group_size)
    dtype = accumulation_dtype(student, teacher)
    return Fitted(
        new_group(student, groups, options.with_groups),
        student.new_empty((6, rows, groups), dtype=dtype),
        student.new_empty((4,), dtype=dtype),
    )


def new_group(student: Tensor, groups: int, with_groups: bool) -> Tensor:
    shape = student.shape if with_groups and groups > 1 else (0,)
    return student.new_empty(shape, dtype=group_dtype(groups))


def group_dtype(groups: int) -> torch.dtype:
    return torch.int16 if groups <= MAX_INT16_GROUPS else torch.int32


def group_number(group: Tensor) -> Tensor:
    """`Fitted.group` as int64 numbers."""
    number = group.to(torch.int64)
    return number & 0xFFFF if group.dtype == torch.int16 else number
