"""impl="triton": the two halves of an op as `liftplace._dispatch` calls them."""

import importlib.util
import os

import torch
from torch import Tensor

from .launch import MAX_ROW

# Asked once: torch.compile does not trace the question everywhere (not in PyTorch 2.11).
_INSTALLED = importlib.util.find_spec("triton") is not None


def why_not(student: Tensor, teacher: Tensor, length: int) -> str | None:
    """Why Triton cannot run on rows of `length` elements here; None if it can."""
    if torch.float64 in (student.dtype, teacher.dtype):
        return "Triton computes in float32, got float64 input; use impl='torch'"
    if length > MAX_ROW:
        return f"rows of {length} elements are longer than {MAX_ROW}; use impl='torch'"
    if not _INSTALLED:
        return "Triton is not installed; run `pip install triton`"
    if student.device.type != "cuda" and os.environ.get("TRITON_INTERPRET") != "1":
        return f"Triton needs a GPU, the tensors are on {student.device}; use impl='torch'"
    return None


def forward(
    student: Tensor,
    teacher: Tensor,
    weight: Tensor | None,
    fixed: float | None,
    group_size: int,
    eps: float,
    squared: bool,
    with_coarse: bool,
    with_fine: bool,
    scale: int,
    with_groups: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """loss, group, coef and terms of `liftplace._closed_form.forward`."""
    from .combine import combine
    from .lift import lift_fwd
    from .place import place_fwd

    if group_size >= student.shape[1]:
        group = student.new_empty(0, dtype=torch.int16)
        coef, partial = lift_fwd(student, teacher, eps=eps, squared=squared)
    else:
        group, coef, partial = place_fwd(
            student, teacher, group_size=group_size, eps=eps, squared=squared,
            with_groups=with_groups,
        )  # fmt: skip
    loss, terms = combine(
        partial, count=student.numel(), weight=weight, fixed=fixed, scale=scale,
        with_coarse=with_coarse, with_fine=with_fine,
    )  # fmt: skip
    return loss, group, coef, terms


def backward(
    student: Tensor,
    teacher: Tensor,
    group: Tensor,
    coef: Tensor,
    terms: Tensor,
    grad_out: Tensor,
    scale: int,
    with_coarse: bool,
    with_fine: bool,
) -> Tensor:
    """The gradient of `liftplace._closed_form.backward`."""
    from .lift import lift_bwd
    from .place import place_bwd

    options = {"scale": scale, "with_coarse": with_coarse, "with_fine": with_fine}
    if coef.shape[2] == 1:
        return lift_bwd(student, teacher, coef, terms, grad_out, **options)
    return place_bwd(student, teacher, group, coef, terms, grad_out, **options)
