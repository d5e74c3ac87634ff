"""Backward of LIFT and PLACE: one streaming pass over student, teacher and group numbers."""

import torch
import triton
import triton.language as tl

from liftplace._contract import Fitted, LossSum

from .launch import backward_launch
from .moments import FP_FUSION


@triton.jit
def _backward_kernel(
    student_ptr,
    teacher_ptr,
    group_ptr,
    coef_ptr,
    stats_ptr,
    grad_out_ptr,
    grad_ptr,
    rows,
    n,
    groups,
    plane,
    blocks,
    scale,
    HAS_GROUPS: tl.constexpr,
    WITH_COARSE: tl.constexpr,
    WITH_FINE: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    program = tl.program_id(0)
    row = (program // blocks) * ROWS + tl.arange(0, ROWS)
    lane = (program % blocks) * BLOCK + tl.arange(0, BLOCK)
    mask = (row < rows)[:, None] & (lane < n)[None, :]
    row = row.to(tl.int64)[:, None]
    offset = row * n + lane[None, :]
    s = tl.load(student_ptr + offset, mask=mask, other=0.0).to(tl.float32)
    t = tl.load(teacher_ptr + offset, mask=mask, other=0.0).to(tl.float32)

    if HAS_GROUPS:
        group = tl.load(group_ptr + offset, mask=mask, other=0).to(tl.int32)
        if group_ptr.dtype.element_ty == tl.int16:
            group = group & 0xFFFF
        coef_ptr += row * groups + group
        coef_mask = mask
    else:
        coef_ptr += row
        coef_mask = row < rows
    slope_less_1 = tl.load(coef_ptr, mask=coef_mask, other=0.0)
    coef_ptr += plane  # to the intercept, which the gradient does not need
    coef_ptr += plane
    ds = s - tl.load(coef_ptr, mask=coef_mask, other=0.0)
    coef_ptr += plane
    dd = (t - s) - tl.load(coef_ptr, mask=coef_mask, other=0.0)

    # Centred, because expanded to P + Q s + R t it cancels badly when the variance is small; in d
    # and not t, because k may be 1 / eps and multiplies the rounding of the mean.
    grad = tl.zeros((ROWS, BLOCK), tl.float32)
    if WITH_COARSE:
        coef_ptr += plane
        k = tl.load(coef_ptr, mask=coef_mask, other=0.0)
        coef_ptr += plane
        c = tl.load(coef_ptr, mask=coef_mask, other=0.0)
        grad += k * (dd - (1.0 + 2.0 * slope_less_1) * ds) - c
    if WITH_FINE:
        fine_weight = tl.load(stats_ptr + 3)
        grad += 2.0 * fine_weight * (1.0 + slope_less_1) * (slope_less_1 * ds - dd)
    grad *= tl.load(grad_out_ptr).to(tl.float32) * scale
    tl.store(grad_ptr + offset, grad.to(grad_ptr.dtype.element_ty), mask=mask)


def backward(
    student: torch.Tensor,
    teacher: torch.Tensor,
    fitted: Fitted,
    grad_out: torch.Tensor,
    loss_sum: LossSum,
) -> torch.Tensor:
    """Gradient of the loss for the student, the closed form of the paper's terms.

        grad_out * scale / M * (k (dd + (1 - 2 b) ds) - c  +  2 w b ((b - 1) ds - dd))

    where ds and dd are s and d = t - s less their group's mean. Arguments and result are those of
    `liftplace._contract`; `grad_out` may have any floating dtype.
    """
    group, coef, stats = fitted
    rows, n = student.shape
    groups = coef.shape[2]
    launch = backward_launch(rows, n)
    grad = torch.empty_like(student)
    tensors = (student, teacher, group if groups > 1 else grad, coef, stats, grad_out, grad)
    sizes = (rows, n, groups, rows * groups, launch.blocks)
    with torch.cuda.device_of(student):
        _backward_kernel[(launch.programs,)](
            *tensors,
            *sizes,
            loss_sum.scale / (rows * n),
            HAS_GROUPS=groups > 1,
            WITH_COARSE=loss_sum.with_coarse,
            WITH_FINE=loss_sum.with_fine,
            ROWS=launch.tile_rows,
            BLOCK=launch.block,
            num_warps=launch.warps,
            enable_fp_fusion=FP_FUSION,
        )
    return grad
