"""What is measured of a training step beside its loss, without waiting for the device."""

from collections.abc import Callable, Iterable

import torch
from accelerate import Accelerator
from torch import Tensor

from liftplace.common.errors import NonFiniteError

Gradient = list[Tensor | None]  # one a weight; None where there is none

# In the order in which a non-finite one is blamed: parts before what is made of them.
MONITORED = (
    *("task", "variance", "coarse", "fine", "weight", "kd", "mse", "feature"),
    *("loss", "gradient_norm"),
)
NEVER = torch.iinfo(torch.int64).max


def gradients_by_term(
    terms: Iterable[str],
    gradient_of: Callable[[str | None], Gradient],
    *,
    add_up: Callable[[Tensor], Tensor] | None = None,
    scale: float = 1.0,
) -> dict[str, Tensor]:
    """With g_k the gradient of term k and g that of their sum: |g_k| and <g_k, g> / <g, g>.

    The shares sum to 1. One is negative where its term pulls against the whole.

    Args:
        terms: their names.
        gradient_of: a term's gradient, or the whole one for None, over the same weights each time;
            the next call may overwrite it.
        add_up: from a process's products to those of all processes, where each has a part of every
            gradient.
        scale: that the gradients are multiplied by.

    Returns:
        "gradient_norm/<term>" and "gradient_share/<term>", 0-d float32 tensors.
    """
    terms = list(terms)
    whole = [None if part is None else part.clone() for part in gradient_of(None)]
    products = [torch.stack([_dot(whole, whole)] * 2)]
    for term in terms:
        own = gradient_of(term)
        products.append(torch.stack([_dot(own, own), _dot(own, whole)]))
    table = torch.stack(products)  # (1 + terms, 2)
    (_, total), *rows = (table if add_up is None else add_up(table)).unbind()
    metrics = {}
    for term, (square, product) in zip(terms, rows, strict=True):
        metrics[f"gradient_norm/{term}"] = square.sqrt() / scale
        metrics[f"gradient_share/{term}"] = product / total
    return metrics


def _dot(one: Gradient, other: Gradient) -> Tensor:
    pairs = zip(one, other, strict=True)
    return sum(
        torch.dot(a.flatten().float(), b.flatten().float())
        for a, b in pairs
        if a is not None and b is not None
    )


class NonFiniteMonitor:
    """Remembers when a metric was not finite for the first time.

    Args:
        accelerator: of the run.
        name: of the model whose metrics they are.
    """

    def __init__(self, accelerator: Accelerator, name: str) -> None:
        self._accelerator, self._name = accelerator, name
        self._first_bad = torch.full((len(MONITORED),), NEVER, device=accelerator.device)

    def note(self, metrics: dict[str, Tensor], step: int) -> None:
        """Take in a step's metrics, 0-d tensors on the device, where the result stays."""
        fine = torch.zeros((), device=self._first_bad.device)
        values = torch.stack([metrics.get(name, fine) for name in MONITORED])
        bad = ~values.isfinite()
        if self._accelerator.scaler is not None:
            bad[-1] = False  # fp16 gradients may overflow: the scaler skips such a step
        self._first_bad = torch.where(bad & (self._first_bad == NEVER), step, self._first_bad)

    def check(self) -> None:
        """Raise NonFiniteError if a metric was not finite in any process. Waits for the device."""
        first_bad = self._accelerator.gather(self._first_bad[None]).amin(dim=0).tolist()
        step = min(first_bad)
        if step != NEVER:
            term = MONITORED[first_bad.index(step)]
            raise NonFiniteError(f"step {step}: {term} of {self._name} is not finite")
