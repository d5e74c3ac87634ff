"""w, the weight of the fine term (section "Adaptive weight")."""

import torch
from torch import Tensor


def fine_weight(weight, terms: str, deviation: Tensor, batch: int, process_group=None) -> Tensor:
    """w as a 0-d constant of deviation's dtype: `weight` itself, or adaptive from D = `deviation`.

    With terms="fine" there is no coarse fit to wait for, so the adaptive w is 1.
    """
    if isinstance(weight, Tensor):
        return weight.detach().to(deviation)
    if weight != "adaptive":
        return torch.full_like(deviation.detach(), weight)
    if terms == "fine":
        return torch.ones_like(deviation.detach())
    return adaptive_weight(deviation, batch, process_group)


def adaptive_weight(deviation: Tensor, batch: int, process_group=None) -> Tensor:
    """w = 1 - min(1, D), a constant for the gradient; NaN stays NaN.

    deviation: 0-d D = mean of |beta_1 - 1| + |beta_0| over this rank's `batch` samples. With a
    process group D is averaged over its ranks, each counted by its samples, so that w does not
    depend on how a batch is split.
    """
    deviation = deviation.detach()
    if process_group is not None:
        total = torch.stack([deviation * batch, torch.full_like(deviation, batch)])
        torch.distributed.all_reduce(total, group=process_group)
        deviation = total[0] / total[1].clamp(min=1.0)
    return 1.0 - deviation.clamp(max=1.0)
