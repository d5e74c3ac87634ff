"""Sorting a row by its squared error: in registers, or in chunks that are then merged.

A key is int64: the bits of e = (t - s)^2 in float32 without the sign, then the index. Keys differ,
so equal errors stand in order of index without a case of their own. Padding takes the largest
error bits and an index past the row, which puts it behind everything, NaN included.
"""

import torch
import triton
import triton.language as tl

from .launch import SortLaunch
from .moments import FP_FUSION


@triton.jit
def error_keys(s, t, index, inside):
    """Keys of elements `index` of a row; `inside` is False for padding."""
    d = t - s
    bits = (d * d).to(tl.int32, bitcast=True) & 0x7FFFFFFF
    bits = tl.where(inside, bits, 0x7FFFFFFF)
    return (bits.to(tl.int64) << 32) | index.to(tl.int64)


@triton.jit
def key_index(keys):
    """Index in the row that a key carries."""
    return (keys & 0xFFFFFFFF).to(tl.int32)


@triton.jit
def _compare_exchange(keys, SIZE: tl.constexpr, STAGE: tl.constexpr, BIT: tl.constexpr):
    """Order the pairs whose positions differ in bit `BIT`; bit `STAGE` set means descending.

    The partner is the sum of the pair less the key itself; int64 wraps around, so that is exact.
    """
    pairs = tl.reshape(keys, (SIZE >> (BIT + 1), 2, 1 << BIT))
    partner = tl.sum(pairs, axis=1, keep_dims=True) - pairs
    block = tl.arange(0, SIZE >> (BIT + 1))[:, None, None]
    descending = (block >> (STAGE - BIT - 1)) & 1
    upper = tl.arange(0, 2)[None, :, None]
    keeps_larger = descending != upper
    return tl.reshape(tl.where((pairs < partner) == keeps_larger, partner, pairs), (SIZE,))


@triton.jit
def sort_keys(keys, SIZE: tl.constexpr, LOG_SIZE: tl.constexpr):
    """Sort `SIZE` = 2^`LOG_SIZE` different int64 keys, ascending (Batcher's bitonic network)."""
    for stage in tl.static_range(1, LOG_SIZE + 1):
        for step in tl.static_range(stage):
            keys = _compare_exchange(keys, SIZE, stage, stage - 1 - step)
    return keys


@triton.jit
def _sort_chunks_kernel(
    student_ptr,
    teacher_ptr,
    out_ptr,
    n,
    chunks,
    CHUNK: tl.constexpr,
    LOG_CHUNK: tl.constexpr,
    LAST: tl.constexpr,
):
    """One program, one chunk: its sorted keys, or the row's sorted indices if it is the row."""
    program = tl.program_id(0)
    row = (program // chunks).to(tl.int64)
    lane = tl.arange(0, CHUNK)
    index = (program % chunks) * CHUNK + lane
    inside = index < n
    s = tl.load(student_ptr + row * n + index, mask=inside, other=0.0).to(tl.float32)
    t = tl.load(teacher_ptr + row * n + index, mask=inside, other=0.0).to(tl.float32)
    keys = sort_keys(error_keys(s, t, index, inside), CHUNK, LOG_CHUNK)
    if LAST:
        tl.store(out_ptr + row * n + lane, key_index(keys), mask=lane < n)
    else:
        tl.store(out_ptr + program.to(tl.int64) * CHUNK + lane, keys)


@triton.jit
def _merge_runs_kernel(
    keys_ptr,
    out_ptr,
    n,
    length,
    blocks,
    RUN: tl.constexpr,
    LOG_RUN: tl.constexpr,
    FAN_IN: tl.constexpr,
    BLOCK: tl.constexpr,
    LAST: tl.constexpr,
):
    """One program, `BLOCK` neighbouring keys of one run, moved to their place in the merged run.

    A key's place is its place in its own run plus the number of smaller keys in every sibling run.
    """
    program = tl.program_id(0)
    row = (program // blocks).to(tl.int64)
    keys_ptr += row * length
    start = (program % blocks) * BLOCK
    position = start + tl.arange(0, BLOCK)
    keys = tl.load(keys_ptr + position)

    own = start // RUN
    family = own // FAN_IN * FAN_IN
    sibling = family + tl.arange(0, FAN_IN)[:, None]
    size = tl.minimum(tl.maximum(length - sibling * RUN, 0), RUN)  # the last run may be short
    size = tl.where(sibling == own, 0, size)
    # Binary search for the number of smaller keys, 0 to RUN, one bit at a time.
    smaller = tl.zeros((FAN_IN, BLOCK), tl.int32)
    step = tl.full((), RUN, tl.int32)
    for _ in range(LOG_RUN + 1):
        probe = smaller + step
        inside = probe <= size
        other = tl.load(keys_ptr + sibling * RUN + probe - 1, mask=inside, other=0)
        smaller = tl.where(inside & (other < keys[None, :]), probe, smaller)
        step = step >> 1
    rank = position - (own - family) * RUN + tl.sum(smaller, axis=0)

    if LAST:
        tl.store(out_ptr + row * n + rank, key_index(keys), mask=rank < n)
    else:
        tl.store(out_ptr + row * length + rank, keys)


def sort_rows(student: torch.Tensor, teacher: torch.Tensor, launch: SortLaunch) -> torch.Tensor:
    """Indices that sort each row by (t - s)^2 in float32, ties by index.

    The same as `torch.sort((teacher.float() - student.float()) ** 2, stable=True).indices`.

    Args:
        student, teacher: (rows, n), contiguous; float32, bfloat16 or float16, each its own.
        launch: how the rows are cut and merged.

    Returns:
        int32 (rows, n).
    """
    rows, n, length = launch.rows, launch.n, launch.length
    order = student.new_empty((rows, n), dtype=torch.int32)
    keys = student.new_empty((rows, length), dtype=torch.int64) if launch.rounds else order
    with torch.cuda.device_of(student):
        _sort_chunks_kernel[(rows * launch.chunks,)](
            student,
            teacher,
            keys,
            n,
            launch.chunks,
            CHUNK=launch.chunk,
            LOG_CHUNK=_log2(launch.chunk),
            LAST=not launch.rounds,
            num_warps=launch.warps,
            enable_fp_fusion=FP_FUSION,
        )
        for merge in launch.rounds:
            blocks = length // merge.block
            out = order if merge.last else torch.empty_like(keys)
            _merge_runs_kernel[(rows * blocks,)](
                keys,
                out,
                n,
                length,
                blocks,
                RUN=merge.run,
                LOG_RUN=_log2(merge.run),
                FAN_IN=merge.fan_in,
                BLOCK=merge.block,
                LAST=merge.last,
                num_warps=merge.warps,
                enable_fp_fusion=FP_FUSION,
            )
            keys = out
    return order


def _log2(power: int) -> int:
    return power.bit_length() - 1
