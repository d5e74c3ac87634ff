"""PLACE: sort a row by its squared error, cut it into groups, fit each group.

A row that fits one program takes one launch. Otherwise `sort_rows` orders the rows and tiles of
groups are fitted in a launch of their own; that also serves group sizes that are no power of two.
"""

import torch
import triton
import triton.language as tl

from liftplace._contract import Options, new_group

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
    groups,
    group_size,
    WITH_GROUPS: tl.constexpr,
):
    """Members `member` of the groups `group` of a row: s, d, mask; notes their group numbers."""
    first = group * group_size
    members = tl.where(group < groups - 1, group_size, n - first)  # the last has what is left
    rank = first[:, None] + member[None, :]
    mask = (group < groups)[:, None] & (member[None, :] < members[:, None])
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
            student_ptr,
            teacher_ptr,
            order_ptr,
            group_ptr,
            group,
            member,
            n,
            groups,
            group_size,
            WITH_GROUPS,
        )
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
                student_ptr,
                teacher_ptr,
                order_ptr,
                group_ptr,
                group,
                trip * BLOCK + member,
                n,
                groups,
                group_size,
                WITH_GROUPS,
            )
            n_b, s_b, d_b, ss_b, sd_b, dd_b, _, _ = tile_moments(s, d, mask)
            count, mean_s, mean_d, m2_s, c_sd, m2_d = merge_moments(
                count, mean_s, mean_d, m2_s, c_sd, m2_d, n_b, s_b, d_b, ss_b, sd_b, dd_b
            )
        slope_less_1, a, spread = linear_fit(count, mean_s, mean_d, m2_s, c_sd, eps)
        squares = residual_squares(slope_less_1, m2_s, c_sd, m2_d)
    coef_ptr += row * groups + group
    exists = group < groups
    store_fit(coef_ptr, plane, exists, mean_s, mean_d, slope_less_1, a, spread, SQUARED)
    store_sums(partial_ptr, program, count, slope_less_1, a, squares, SQUARED)


def place_fwd(
    student: torch.Tensor,
    teacher: torch.Tensor,
    options: Options,
    launch: PlaceLaunch | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Group every row by ascending squared error and fit the teacher on the student in each group.

    Args:
        student, teacher: (rows, n), contiguous; float32, bfloat16 or float16, each its own.
        options: 1 <= group_size < n; the last group may be smaller. `eps`, `squared` and
            `with_groups` are read too.
        launch: `place_launch(rows, n, group_size)` unless passed.

    Returns:
        group, coef: as in `liftplace._contract.Fitted`.
        partial: float32 (programs, 3): sums of coarse, D and fine, for `combine`.

    Raises:
        ValueError: `group_size` or the row length is out of range.
    """
    rows, n = student.shape
    group_size, eps, with_groups = options.group_size, float(options.eps), options.with_groups
    launch = launch or place_launch(rows, n, group_size)
    groups = launch.groups
    group = new_group(student, groups, with_groups)
    coef = student.new_empty((6, rows, groups), dtype=torch.float32)
    partial = student.new_empty((launch.programs, 3), dtype=torch.float32)
    plane = rows * groups
    fit = {"SQUARED": options.squared, "WITH_GROUPS": with_groups}
    tile = {"BLOCK": launch.block, "num_warps": launch.warps, "enable_fp_fusion": FP_FUSION}
    with torch.cuda.device_of(student):
        if launch.sort is None:
            tensors, sizes = (student, teacher, group, coef, partial), (n, groups, plane)
            tile |= {"LOG_BLOCK": launch.block.bit_length() - 1, "GROUP_SIZE": group_size}
            _place_fwd_kernel[(rows,)](*tensors, *sizes, eps, **fit, **tile)
            return group, coef, partial
        order = sort_rows(student, teacher, launch.sort)
        tensors = (student, teacher, order, group, coef, partial)
        sizes = (n, groups, group_size, plane, launch.programs // rows)
        tile |= {"GROUPS": launch.tile_groups, "TRIPS": launch.trips}
        _group_moments_kernel[(launch.programs,)](*tensors, *sizes, eps, **fit, **tile)
    return group, coef, partial
