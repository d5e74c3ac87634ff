"""impl="triton": the contract of `liftplace._contract`; imports Triton when it first runs."""

import importlib.util
import os

import torch
from torch import Tensor

from liftplace._arguments import group_count
from liftplace._contract import Fitted, LossSum, Options

from .launch import MAX_ROW

# Asked once: torch.compile does not trace the question everywhere (not in PyTorch 2.11).
_INSTALLED = importlib.util.find_spec("triton") is not None


def unsupported_reason(student: Tensor, teacher: Tensor, length: int) -> str | None:
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
    student: Tensor, teacher: Tensor, fine_weight: Tensor | None, options: Options, launch=None
) -> tuple[Tensor, Fitted]:
    """The loss and what was fitted; see `liftplace._contract`. `launch`: as in the launchers."""
    from .combine import combine
    from .lift import lift_fwd
    from .place import place_fwd

    whole = group_count(student.shape[1], options.group_size) == 1
    fit = lift_fwd if whole else place_fwd
    group, coef, partial = fit(student, teacher, options, launch)
    loss, stats = combine(partial, student.numel(), fine_weight, options)
    return loss, Fitted(group, coef, stats)


def backward(
    student: Tensor, teacher: Tensor, fitted: Fitted, grad_out: Tensor, loss_sum: LossSum
) -> Tensor:
    """d loss / d student; see `liftplace._contract`."""
    from .backward import backward

    return backward(student, teacher, fitted, grad_out, loss_sum)
