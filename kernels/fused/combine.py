"""From partial sums to the loss, its terms and w: one program, no host synchronisation."""

import torch
import triton
import triton.language as tl

from liftplace._contract import Options

from .launch import combine_launch
from .moments import FP_FUSION


@triton.jit
def _combine_kernel(
    partial_ptr,
    fine_weight_ptr,
    loss_ptr,
    stats_ptr,
    programs,
    count,
    fixed_weight,
    scale,
    WEIGHT: tl.constexpr,
    WITH_COARSE: tl.constexpr,
    WITH_FINE: tl.constexpr,
    BLOCK: tl.constexpr,
    TRIPS: tl.constexpr,
):
    """`WEIGHT`: "adaptive", "fixed" or "tensor"."""
    lane = tl.arange(0, BLOCK)
    coarse = tl.zeros((BLOCK,), tl.float32)
    deviation = tl.zeros((BLOCK,), tl.float32)
    fine = tl.zeros((BLOCK,), tl.float32)
    for trip in range(TRIPS):
        program = trip * BLOCK + lane
        mask = program < programs
        offset = program.to(tl.int64) * 3
        coarse += tl.load(partial_ptr + offset, mask=mask, other=0.0)
        deviation += tl.load(partial_ptr + offset + 1, mask=mask, other=0.0)
        fine += tl.load(partial_ptr + offset + 2, mask=mask, other=0.0)
    coarse_mean = tl.sum(coarse, axis=0) / count
    deviation_mean = tl.sum(deviation, axis=0) / count
    fine_mean = tl.sum(fine, axis=0) / count

    if WEIGHT == "adaptive":
        fine_weight = 1.0 - tl.where(deviation_mean > 1.0, 1.0, deviation_mean)  # a NaN stays
    elif WEIGHT == "tensor":
        fine_weight = tl.load(fine_weight_ptr).to(tl.float32)
    else:
        fine_weight = fixed_weight
    loss = 0.0
    if WITH_COARSE:
        loss += coarse_mean
    if WITH_FINE:
        loss += fine_weight * fine_mean
    tl.store(loss_ptr, loss * scale)
    tl.store(stats_ptr, coarse_mean)
    tl.store(stats_ptr + 1, fine_mean)
    tl.store(stats_ptr + 2, deviation_mean)
    tl.store(stats_ptr + 3, fine_weight)


def combine(
    partial: torch.Tensor, count: int, fine_weight: torch.Tensor | None, options: Options
) -> tuple[torch.Tensor, torch.Tensor]:
    """The loss and its terms from the forward's partial sums.

        loss = scale * (coarse + w * fine),  w = 1 - min(1, D) unless passed

    Args:
        partial: float32 (programs, 3) from `lift_fwd` or `place_fwd`.
        count: M, the number of elements.
        fine_weight: w as a 0-d tensor on the device, or None.
        options: its `fixed_weight` and its `loss_sum` are read.

    Returns:
        loss: float32, 0-d, in memory of its own.
        stats: float32 (4,): coarse, fine, D, w.

    Raises:
        ValueError: w is passed both as a tensor and as a number.
    """
    fixed_weight, loss_sum = options.fixed_weight, options.loss_sum
    if fine_weight is not None and fixed_weight is not None:
        raise ValueError(
            f"pass fine_weight or fixed_weight, not both; got fixed_weight={fixed_weight} beside "
            "a tensor"
        )
    kind = "adaptive" if fixed_weight is None else "fixed"
    kind = kind if fine_weight is None else "tensor"
    programs = partial.shape[0]
    launch = combine_launch(programs)
    loss, stats = partial.new_empty(()), partial.new_empty(4)
    tensors = (partial, partial if fine_weight is None else fine_weight, loss, stats)
    with torch.cuda.device_of(partial):
        _combine_kernel[(1,)](
            *tensors,
            programs,
            float(count),
            float(fixed_weight or 0.0),
            float(loss_sum.scale),
            WEIGHT=kind,
            WITH_COARSE=loss_sum.with_coarse,
            WITH_FINE=loss_sum.with_fine,
            BLOCK=launch.block,
            TRIPS=launch.trips,
            num_warps=launch.warps,
            enable_fp_fusion=FP_FUSION,
        )
    return loss, stats
