"""LIFT and PLACE as one writes them in eager PyTorch, the baseline of every ratio.

Sort, gather, take the moments with one call each, let autograd find the gradient through them, and
read the adaptive weight on the host. Inputs of 16 bits are widened first, as trainers do before a
loss. The last group must be whole.
"""

import torch.nn.functional as F
from torch import Tensor


def place_loss(
    student: Tensor, teacher: Tensor, group_size: int = 16, eps: float = 1e-7, stable: bool = False
) -> Tensor:
    """PLACE of (B, C, *spatial) inputs: rows are channels, l1 norm, adaptive weight, mean.

    stable: break ties by index. Not needed to train and slower on a CPU, but without it two
    implementations cannot be compared on inputs that tie often.
    """
    s, t = student.float().flatten(2), teacher.float().flatten(2)  # (B, C, n)
    if s.shape[-1] % group_size:
        raise ValueError(f"group_size={group_size} does not divide rows of {s.shape[-1]} elements")
    order = (t - s).detach().square().argsort(dim=-1, stable=stable)
    s = s.gather(-1, order).unflatten(-1, (-1, group_size))  # (B, C, groups, K)
    t = t.gather(-1, order).unflatten(-1, (-1, group_size))
    return _fitted_loss(s, t, eps)


def lift_loss(student: Tensor, teacher: Tensor, eps: float = 1e-7) -> Tensor:
    """LIFT: one fit a channel."""
    return _fitted_loss(student.float().flatten(2), teacher.float().flatten(2), eps)


def _fitted_loss(s: Tensor, t: Tensor, eps: float) -> Tensor:
    """Fit t on s over the last axis; coarse + w * fine."""
    mean_s, mean_t = s.mean(-1, keepdim=True), t.mean(-1, keepdim=True)
    centred_s, centred_t = s - mean_s, t - mean_t
    variance = centred_s.square().mean(-1, keepdim=True)
    covariance = (centred_s * centred_t).mean(-1, keepdim=True)
    slope = covariance / (variance + eps)
    intercept = mean_t - slope * mean_s
    coarse = (slope - 1).abs().mean() + intercept.abs().mean()
    weight = 1 - min(1.0, coarse.item())
    fine = F.mse_loss(intercept.detach() + slope.detach() * s, t)
    return coarse + weight * fine
