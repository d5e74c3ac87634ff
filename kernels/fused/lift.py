"""LIFT: one linear fit a row.

A row that fits one program is read once. A longer row is cut into chunks; each writes its moments
and one program a row merges them.
"""

import torch
import triton
import triton.language as tl

from liftplace._contract import Options, new_group

from .launch import LiftLaunch, lift_launch
from .moments import (
    FP_FUSION,
    centre,
    linear_fit,
    residual_squares,
    store_fit,
    store_sums,
    tile_moments,
)


@triton.jit
def _lift_fwd_kernel(
    student_ptr,
    teacher_ptr,
    coef_ptr,
    partial_ptr,
    rows,
    n,
    eps,
    SQUARED: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One program, `ROWS` whole rows."""
    program = tl.program_id(0)
    row = program * ROWS + tl.arange(0, ROWS)
    lane = tl.arange(0, BLOCK)
    inside = row < rows
    mask = inside[:, None] & (lane < n)[None, :]
    offset = row.to(tl.int64)[:, None] * n + lane[None, :]
    s = tl.load(student_ptr + offset, mask=mask, other=0.0).to(tl.float32)
    t = tl.load(teacher_ptr + offset, mask=mask, other=0.0).to(tl.float32)

    count, mean_s, mean_d, m2_s, c_sd, m2_d, ds, dd = tile_moments(s, t - s, mask)
    slope_less_1, a, spread = linear_fit(count, mean_s, mean_d, m2_s, c_sd, eps)
    residual = tl.where(mask, slope_less_1[:, None] * ds - dd, 0.0)
    squares = tl.sum(residual * residual, axis=1)
    store_fit(coef_ptr + row, rows, inside, mean_s, mean_d, slope_less_1, a, spread, SQUARED)
    store_sums(partial_ptr, program, count, slope_less_1, a, squares, SQUARED)


@triton.jit
def _lift_chunks_kernel(
    student_ptr, teacher_ptr, moments_ptr, n, chunks, plane, BLOCK: tl.constexpr
):
    """One program, one chunk of one row: its five moments, one plane each."""
    program = tl.program_id(0)
    row = (program // chunks).to(tl.int64)
    lane = (program % chunks) * BLOCK + tl.arange(0, BLOCK)[None, :]
    mask = lane < n
    s = tl.load(student_ptr + row * n + lane, mask=mask, other=0.0).to(tl.float32)
    t = tl.load(teacher_ptr + row * n + lane, mask=mask, other=0.0).to(tl.float32)
    count, mean_s, mean_d, m2_s, c_sd, m2_d, ds, dd = tile_moments(s, t - s, mask)
    moments_ptr += program + tl.arange(0, 1)
    tl.store(moments_ptr, mean_s)
    moments_ptr += plane
    tl.store(moments_ptr, mean_d)
    moments_ptr += plane
    tl.store(moments_ptr, m2_s)
    moments_ptr += plane
    tl.store(moments_ptr, c_sd)
    moments_ptr += plane
    tl.store(moments_ptr, m2_d)


@triton.jit
def _lift_merge_kernel(
    moments_ptr,
    coef_ptr,
    partial_ptr,
    rows,
    n,
    chunks,
    plane,
    eps,
    SQUARED: tl.constexpr,
    BLOCK: tl.constexpr,
    CHUNKS: tl.constexpr,
):
    """One program, one row: all of its chunks' moments at once, then the fit."""
    row = tl.program_id(0)
    chunk = tl.arange(0, CHUNKS)[None, :]
    mask = chunk < chunks
    members = tl.minimum(tl.maximum(n - chunk * BLOCK, 0), BLOCK).to(tl.float32)
    moments_ptr += row.to(tl.int64) * chunks + chunk
    chunk_mean_s = tl.load(moments_ptr, mask=mask, other=0.0)
    moments_ptr += plane
    chunk_mean_d = tl.load(moments_ptr, mask=mask, other=0.0)
    moments_ptr += plane
    chunk_m2_s = tl.load(moments_ptr, mask=mask, other=0.0)
    moments_ptr += plane
    chunk_c_sd = tl.load(moments_ptr, mask=mask, other=0.0)
    moments_ptr += plane
    chunk_m2_d = tl.load(moments_ptr, mask=mask, other=0.0)

    count = tl.sum(members, axis=1)
    mean_s, delta_s = centre(chunk_mean_s, members, count)
    mean_d, delta_d = centre(chunk_mean_d, members, count)
    m2_s = tl.sum(chunk_m2_s + members * delta_s * delta_s, axis=1)
    c_sd = tl.sum(chunk_c_sd + members * delta_s * delta_d, axis=1)
    m2_d = tl.sum(chunk_m2_d + members * delta_d * delta_d, axis=1)

    slope_less_1, a, spread = linear_fit(count, mean_s, mean_d, m2_s, c_sd, eps)
    squares = residual_squares(slope_less_1, m2_s, c_sd, m2_d)
    coef_ptr += row + tl.arange(0, 1)
    store_fit(coef_ptr, rows, count > 0.0, mean_s, mean_d, slope_less_1, a, spread, SQUARED)
    store_sums(partial_ptr, row, count, slope_less_1, a, squares, SQUARED)


def lift_fwd(
    student: torch.Tensor,
    teacher: torch.Tensor,
    options: Options,
    launch: LiftLaunch | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Fit every row of the teacher on the student's row.

    Args:
        student, teacher: (rows, n), contiguous; float32, bfloat16 or float16, each its own.
        options: its `eps` and `squared` are read.
        launch: `lift_launch(rows, n)` unless passed.

    Returns:
        group, coef: as in `liftplace._contract.Fitted`; group is empty.
        partial: float32 (programs, 3): sums of coarse, D and fine, for `combine`.
    """
    rows, n = student.shape
    launch = launch or lift_launch(rows, n)
    group = new_group(student, 1, options.with_groups)
    coef = student.new_empty((6, rows, 1), dtype=torch.float32)
    partial = student.new_empty((launch.programs, 3), dtype=torch.float32)
    eps, tile = float(options.eps), {"SQUARED": options.squared, "BLOCK": launch.block}
    compiled = {"num_warps": launch.warps, "enable_fp_fusion": FP_FUSION}
    with torch.cuda.device_of(student):
        if launch.chunks == 1:
            tensors = (student, teacher, coef, partial)
            _lift_fwd_kernel[(launch.programs,)](
                *tensors, rows, n, eps, ROWS=launch.tile_rows, **tile, **compiled
            )
            return group, coef, partial
        plane = rows * launch.chunks
        moments = student.new_empty((5, rows, launch.chunks), dtype=torch.float32)
        tensors = (student, teacher, moments)
        _lift_chunks_kernel[(plane,)](
            *tensors, n, launch.chunks, plane, BLOCK=launch.block, **compiled
        )
        tensors, sizes = (moments, coef, partial), (rows, n, launch.chunks, plane)
        compiled["num_warps"] = 1
        _lift_merge_kernel[(rows,)](
            *tensors, *sizes, eps, CHUNKS=launch.merge_block, **tile, **compiled
        )
    return group, coef, partial
