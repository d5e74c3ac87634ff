"""From partial sums to the loss, its terms and the weight: one program, no host synchronisation."""

import torch
import triton
import triton.language as tl

from .launch import combine_launch
from .moments import FP_FUSION


@triton.jit
def _combine_kernel(
    partial_ptr,
    weight_ptr,
    loss_ptr,
    terms_ptr,
    programs,
    count,
    fixed,
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
    distance = tl.zeros((BLOCK,), tl.float32)
    fine = tl.zeros((BLOCK,), tl.float32)
    for trip in range(TRIPS):
        program = trip * BLOCK + lane
        mask = program < programs
        offset = program.to(tl.int64) * 3
        coarse += tl.load(partial_ptr + offset, mask=mask, other=0.0)
        distance += tl.load(partial_ptr + offset + 1, mask=mask, other=0.0)
        fine += tl.load(partial_ptr + offset + 2, mask=mask, other=0.0)
    coarse_mean = tl.sum(coarse, axis=0) / count
    distance_mean = tl.sum(distance, axis=0) / count
    fine_mean = tl.sum(fine, axis=0) / count

    if WEIGHT == "adaptive":
        weight = 1.0 - tl.where(distance_mean > 1.0, 1.0, distance_mean)  # a NaN stays
    elif WEIGHT == "tensor":
        weight = tl.load(weight_ptr).to(tl.float32)
    else:
        weight = fixed
    loss = 0.0
    if WITH_COARSE:
        loss += coarse_mean
    if WITH_FINE:
        loss += weight * fine_mean
    tl.store(loss_ptr, loss * scale)
    tl.store(terms_ptr, coarse_mean)
    tl.store(terms_ptr + 1, fine_mean)
    tl.store(terms_ptr + 2, distance_mean)
    tl.store(terms_ptr + 3, weight)


def combine(
    partial: torch.Tensor,
    *,
    count: int,
    weight: torch.Tensor | None,
    fixed: float | None,
    scale: float,
    with_coarse: bool,
    with_fine: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The loss and its terms from the forward's partial sums.

        loss = scale * (coarse + w * fine),  w = 1 - min(1, D) unless given

    Args:
        partial: float32 (programs, 3) from `lift_fwd` or `place_fwd`.
        count: M, the number of elements.
        weight: w as a 0-d tensor on the device, or None.
        fixed: w as a number, or None. Neither means adaptive; both is an error.
        scale: 1, or the elements of a sample for reduction="sum".
        with_coarse, with_fine: which terms the loss holds.

    Returns:
        loss: float32, 0-d, in memory of its own.
        terms: float32 (4,): coarse, fine, D, w.

    Raises:
        ValueError: `weight` and `fixed` are both given.
    """
    if weight is not None and fixed is not None:
        raise ValueError(f"give weight or fixed, not both; got fixed={fixed} beside a tensor")
    kind = "tensor" if weight is not None else "adaptive" if fixed is None else "fixed"
    programs = partial.shape[0]
    launch = combine_launch(programs)
    loss, terms = partial.new_empty(()), partial.new_empty(4)
    with torch.cuda.device_of(partial):
        _combine_kernel[(1,)](
            partial, partial if weight is None else weight, loss, terms, programs,
            float(count), 0.0 if fixed is None else float(fixed), float(scale),
            WEIGHT=kind, WITH_COARSE=with_coarse, WITH_FINE=with_fine,
            BLOCK=launch.block, TRIPS=launch.trips,
            num_warps=launch.warps, enable_fp_fusion=FP_FUSION,
        )  # fmt: skip
    return loss, terms
