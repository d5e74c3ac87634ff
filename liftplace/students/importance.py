"""How much each weight matters: the scores that decide which channels a student inherits."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from liftplace.common.errors import UsageError


def magnitude(model: nn.Module) -> dict[str, Tensor]:
    """The square of each weight by its parameter's name, as a share of the parameter's sum: a norm
    behind a layer takes out the layer's scale, so that weights compare only within one."""
    squares = {name: weight.detach().float() ** 2 for name, weight in model.named_parameters()}
    return {name: s / s.sum().clamp(min=1e-30) for name, s in squares.items()}


def taylor(model: nn.Module, losses: Iterable[Tensor]) -> dict[str, Tensor]:
    """The squared first-order change of the loss without each weight, summed over batches:
    (w * dL/dw)^2 (Molchanov et al., arXiv 1906.10771, equation 8).

    Args:
        losses: of one batch after the other, each computed with the model when it is needed.

    Returns:
        Scores in float32 by the parameter's name. What no loss depends on scores 0.

    Raises:
        UsageError: no batch, or a loss that is not finite.
    """
    weights = {name: w for name, w in model.named_parameters() if w.requires_grad}
    scores = {name: torch.zeros_like(w, dtype=torch.float32) for name, w in weights.items()}
    batches = 0
    for loss in losses:
        if not torch.isfinite(loss):
            raise UsageError(
                f"importance taylor: the teacher's loss on batch {batches + 1} is {loss.item()}: "
                "check the data and the teacher, or use importance magnitude"
            )
        gradients = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
        for (name, weight), gradient in zip(weights.items(), gradients, strict=True):
            if gradient is not None:
                scores[name] += (weight.detach().float() * gradient.float()) ** 2
        batches += 1
    if not batches:
        raise UsageError("importance taylor needs at least one batch of images")
    return scores
