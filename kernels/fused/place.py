"""PLACE: sort a row by its squared error, cut it into groups, fit each group.

A row that fits one program takes one launch. Otherwise `sort_rows` orders the rows and tiles of
groups are fitted in a launch of their own; that also serves group sizes that are no power of two.
"""

import torch
import triton
import triton.language as tl

from .backward import backward
from .launch import PlaceLaunch, place_launch
from .moments import (
    FP_FUSION,
    linear_fit,
    merge_moments,
    residual_squares,
    store_fit,
    store_sums,
    tile_moments,
)
from .sorting import error_keys, key_index, sort_keys, sort_rows


@triton.jit
def _fit_tile(s, d, mask, eps):
    """Fit each row of a (groups, elements) tile; the sum of r^2 comes from the elements."""
    count, mean_s, mean_d, m2_s, c_sd, m2_d, ds, dd = tile_moments(s, d, mask)
    slope_less_1, a, spread = linear_fit(count, mean_s, mean_d, m2_s, c_sd, eps)
    residual = tl.where(mask, slope_less_1[:, None] * ds - dd, 0.0)
    return count, mean_s, mean_d, slope_less_1, a, spread, tl.sum(residual * residual, axis=1)


@triton.jit
def _place_fwd_kernel(
    student_ptr,
    teacher_ptr,
    group_ptr,
    coef_ptr,
    partial_ptr,
    n,
    groups,
    plane,
    eps,
    SQUARED: tl.constexpr,
    WITH_GROUPS: tl.constexpr,
    BLOCK: tl.constexpr,
    LOG_BLOCK: tl.constexpr,
    GROUP_SIZE: tl.constexpr,
):
    """One program, one row: sort in registers, gather the sorted elements from cache, fit."""
    row = tl.program_id(0)
    base = row.to(tl.int64) * n
    lane = tl.arange(0, BLOCK)
    inside = lane < n
    s = tl.load(student_ptr + base + lane, mask=inside, other=0.0).to(tl.float32)
    t = tl.load(teacher_ptr + base + lane, mask=inside, other=0.0).to(tl.float32)
    keys = sort_keys(error_keys(s, t, lane, inside), BLOCK, LOG_BLOCK)

    index = tl.reshape(key_index(keys), (BLOCK // GROUP_SIZE, GROUP_SIZE))
    group = tl.arange(0, BLOCK // GROUP_SIZE)
    mask = group[:, None] * GROUP_SIZE + tl.arange(0, GROUP_SIZE)[None, :] < n
    s = tl.load(student_ptr + base + index, mask=mask, other=0.0).to(tl.float32)
    t = tl.load(teacher_ptr + base + index, mask=mask, other=0.0).to(tl.float32)
    if WITH_GROUPS:
        number = tl.broadcast_to(group[:, None], (BLOCK // GROUP_SIZE, GROUP_SIZE))
        tl.store(group_ptr + base + index, number.to(group_ptr.dtype.element_ty), mask=mask)

    count, mean_s, mean_d, slope_less_1, a, spread, squares = _fit_tile(s, t - s, mask, eps)
    coef_ptr += row.to(tl.int64) * groups + group
    exists = group < groups
    store_fit(coef_ptr, plane, exists, mean_s, mean_d, slope_less_1, a, spread, SQUARED)
    store_sums(partial_ptr, row, count, slope_less_1, a, squares, SQUARED)


@triton.jit
def _load_tile(
    student_ptr,
    teacher_ptr,
    order_ptr,
    group_ptr,
    group,
    member,
    n,
    group_size,
    WITH_GROUPS: tl.constexpr,
):
    """Members `member` of the groups `group` of a row: s, d, mask; notes their group numbers."""
    rank = group[:, None] * group_size + member[None, :]
    mask = (member < group_size)[None, :] & (rank < n)
    index = tl.load(order_ptr + rank, mask=mask, other=0)
    s = tl.load(student_ptr + index, mask=mask, other=0.0).to(tl.float32)
    t = tl.load(teacher_ptr + index, mask=mask, other=0.0).to(tl.float32)
    if WITH_GROUPS:
        number = tl.zeros_like(index) + group[:, None]
        tl.store(group_ptr + index, number.to(group_ptr.dtype.element_ty), mask=mask)
    return s, t - s, mask


@triton.jit
def _group_moments_kernel(
    student_ptr,
    teacher_ptr,
    order_ptr,
    group_ptr,
    coef_ptr,
    partial_ptr,
    n,
    groups,
    group_size,
    plane,
    tiles,
    eps,
    SQUARED: tl.constexpr,
    WITH_GROUPS: tl.constexpr,
    GROUPS: tl.constexpr,
    BLOCK: tl.constexpr,
    TRIPS: tl.constexpr,
):
    """One program, `GROUPS` groups of a sorted row; one wider than a tile takes `TRIPS` tiles."""
    program = tl.program_id(0)
    row = (program // tiles).to(tl.int64)
    group = (program % tiles) * GROUPS + tl.arange(0, GROUPS)
    member = tl.arange(0, BLOCK)
    student_ptr += row * n
    teacher_ptr += row * n
    order_ptr += row * n
    if WITH_GROUPS:
        group_ptr += row * n

    if TRIPS == 1:
        s, d, mask = _load_tile(
            student_ptr, teacher_ptr, order_ptr, group_ptr, group, member,
            n, group_size, WITH_GROUPS,
        )  # fmt: skip
        count, mean_s, mean_d, slope_less_1, a, spread, squares = _fit_tile(s, d, mask, eps)
    else:
        count = tl.zeros((GROUPS,), tl.float32)
        mean_s = tl.zeros((GROUPS,), tl.float32)
        mean_d = tl.zeros((GROUPS,), tl.float32)
        m2_s = tl.zeros((GROUPS,), tl.float32)
        c_sd = tl.zeros((GROUPS,), tl.float32)
        m2_d = tl.zeros((GROUPS,), tl.float32)
        for trip in range(TRIPS):
            s, d, mask = _load_tile(
                student_ptr, teacher_ptr, order_ptr, group_ptr, group, trip * BLOCK + member,
                n, group_size, WITH_GROUPS,
            )  # fmt: skip
            n_b, mean_s_b, mean_d_b, m2_s_b, c_sd_b, m2_d_b, _, _ = tile_moments(s, d, mask)
            count, mean_s, mean_d, m2_s, c_sd, m2_d = merge_moments(
                count, mean_s, mean_d, m2_s, c_sd, m2_d,
                n_b, mean_s_b, mean_d_b, m2_s_b, c_sd_b, m2_d_b,
            )  # fmt: skip
        slope_less_1, a, spread = linear_fit(count, mean_s, mean_d, m2_s, c_sd, eps)
        squares = residual_squares(slope_less_1, m2_s, c_sd, m2_d)
    coef_ptr += row * groups + group
    exists = group < groups
    store_fit(coef_ptr, plane, exists, mean_s, mean_d, slope_less_1, a, spread, SQUARED)
    store_sums(partial_ptr, program, count, slope_less_1, a, squares, SQUARED)


def place_fwd(
    student: torch.Tensor,
    teacher: torch.Tensor,
    *,
    group_size: int,
    eps: float,
    squared: bool,
    with_groups: bool,
    launch: PlaceLaunch | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Group every row by ascending squared error and fit the teacher on the student in each group.

    Args:
        student, teacher: (rows, n), contiguous; float32, bfloat16 or float16, each its own.
        group_size: elements a group, 1 <= group_size < n; the last group may be smaller.
        eps: added to each group's variance.
        squared: phi(z) = z^2 instead of |z|.
        with_groups: whether the group numbers are wanted (for the backward).
        launch: `place_launch(rows, n, group_size)` unless given.

    Returns:
        group: (rows, n), the group of each element; int16 whose 16 bits are the number while a row
            has at most 65,536 groups (read it with & 0xFFFF), else int32. Empty (0,) when not
            wanted.
        coef: float32 (6, rows, groups): slope, intercept, mean_s, mean_d, k, c.
        partial: float32 (programs, 3): sums of coarse, D and fine, for `combine`.

    Raises:
        ValueError: `group_size` or the row length is out of range.
    """
    rows, n = student.shape
    launch = launch or place_launch(rows, n, group_size)
    group_dtype = torch.int32 if launch.wide else torch.int16
    group = student.new_empty((rows, n) if with_groups else (0,), dtype=group_dtype)
    coef = student.new_empty((6, rows, launch.groups), dtype=torch.float32)
    partial = student.new_empty((launch.programs, 3), dtype=torch.float32)
    plane = rows * launch.groups
    options = {"num_warps": launch.warps, "enable_fp_fusion": FP_FUSION}
    with torch.cuda.device_of(student):
        if launch.sort is None:
            _place_fwd_kernel[(rows,)](
                student, teacher, group, coef, partial, n, launch.groups, plane, float(eps),
                SQUARED=squared, WITH_GROUPS=with_groups, BLOCK=launch.block,
                LOG_BLOCK=launch.block.bit_length() - 1, GROUP_SIZE=group_size, **options,
            )  # fmt: skip
            return group, coef, partial
        order = sort_rows(student, teacher, launch.sort)
        _group_moments_kernel[(launch.programs,)](
            student, teacher, order, group, coef, partial, n, launch.groups, group_size, plane,
            launch.programs // rows, float(eps),
            SQUARED=squared, WITH_GROUPS=with_groups, GROUPS=launch.tile_groups,
            BLOCK=launch.block, TRIPS=launch.trips, **options,
        )  # fmt: skip
    return group, coef, partial


def place_bwd(
    student: torch.Tensor,
    teacher: torch.Tensor,
    group: torch.Tensor,
    coef: torch.Tensor,
    terms: torch.Tensor,
    grad_out: torch.Tensor,
    *,
    scale: float,
    with_coarse: bool,
    with_fine: bool,
) -> torch.Tensor:
    """Gradient of the loss for the student: (rows, n) in the student's dtype; see `backward`."""
    return backward(
        student, teacher, group, coef, terms, grad_out,
        scale=scale, with_coarse=with_coarse, with_fine=with_fine,
    )  # fmt: skip
