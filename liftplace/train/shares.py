"""What each term of a loss contributes to its gradient."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

Gradient = list[Tensor | None]  # one a weight; None where there is none


def gradient_shares(
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
            what it gives may be overwritten by the next call.
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
    found = {}
    for term, (square, product) in zip(terms, rows, strict=True):
        found[f"gradient_norm/{term}"] = square.sqrt() / scale
        found[f"gradient_share/{term}"] = product / total
    return found


def _dot(one: Gradient, other: Gradient) -> Tensor:
    pairs = zip(one, other, strict=True)
    return sum(
        torch.dot(a.flatten().float(), b.flatten().float())
        for a, b in pairs
        if a is not None and b is not None
    )
