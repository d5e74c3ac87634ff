"""Precision and recall of samples: how much of each set lies on the other's manifold.

Both depend on N and on k: give the same N to every model, and print the values of two sets of
real images of that N beside them.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

CHUNK_ENTRIES = 2**24  # distances held at a time: 128 MB in float64
# Of the largest squared norm. Squared distances below it are rounding of copies, and count as 0.
ROUNDING = 1e-12


@dataclass(frozen=True)
class PrecisionRecall:
    """Shares in [0, 1]; higher is better."""

    precision: float  # of the generated images that lie among the real ones
    recall: float  # of the real images that lie among the generated ones


def precision_recall(
    real: Tensor, generated: Tensor, *, k: int = 3, chunk_entries: int = CHUNK_ENTRIES
) -> PrecisionRecall:
    """Improved precision and recall.

    The manifold of a set is the union of balls around its points; the radius of each is the
    distance to its k-th nearest neighbour in the set, itself not counted.

    Args:
        real: (N, features), N > k.
        generated: (M, features), M > k, by the same network.
        k: neighbours.
        chunk_entries: distances held at a time; the result does not depend on it.

    Raises:
        ValueError: fewer images than neighbours, other features, values that are not finite.

    Source: Kynkaanniemi et al., arXiv 1904.06991, equations 1 and 2, algorithm 1.
    """
    return PrecisionRecall(
        precision=share_inside(generated, real, k=k, chunk_entries=chunk_entries),
        recall=share_inside(real, generated, k=k, chunk_entries=chunk_entries),
    )


def share_inside(
    points: Tensor, manifold: Tensor, *, k: int = 3, chunk_entries: int = CHUNK_ENTRIES
) -> float:
    """The share of points on a manifold: precision of generated ones on that of the real, recall
    the other way round.

    Args, Raises: of `precision_recall`; manifold (N, features), N > k, and points (M, features).
    """
    if points.ndim != 2 or manifold.ndim != 2 or points.shape[1] != manifold.shape[1]:
        raise ValueError(
            "points and manifold must be (M, features) and (N, features), got "
            f"{tuple(points.shape)} and {tuple(manifold.shape)}"
        )
    if not 1 <= k < len(manifold):
        raise ValueError(
            f"k must be at least 1 and less than the number of images, got k = {k} with "
            f"{len(manifold)} images"
        )
    if not (points.isfinite().all() and manifold.isfinite().all()):
        raise ValueError("features must be finite: a network gave NaN or infinity")
    centre = manifold.double().mean(0)  # differences of small norms lose fewer digits
    points, manifold = points.double() - centre, manifold.double() - centre
    radii = _squared_radii(manifold, k, chunk_entries)  # (N,)
    rows = max(1, chunk_entries // len(manifold))
    inside = [(_squared_distances(some, manifold) <= radii).any(1) for some in points.split(rows)]
    return torch.cat(inside).double().mean().item()


def _squared_radii(points: Tensor, k: int, chunk_entries: int) -> Tensor:
    """(N,): the squared distance of every point to its k-th nearest neighbour."""
    rows = max(1, chunk_entries // len(points))
    radii = []
    for first in range(0, len(points), rows):
        distances = _squared_distances(points[first : first + rows], points)
        own = torch.arange(len(distances), device=points.device)
        distances[own, first + own] = torch.inf  # a copy of a point is a neighbour, itself is none
        radii.append(distances.kthvalue(k, dim=1).values)
    return torch.cat(radii)


def _squared_distances(some: Tensor, others: Tensor) -> Tensor:
    """(len(some), len(others)), by one product of matrices."""
    rows, columns = some.square().sum(1)[:, None], others.square().sum(1)
    distances = torch.addmm(rows + columns, some, others.T, alpha=-2)
    smallest = ROUNDING * torch.maximum(rows, columns)
    return distances.masked_fill_(distances < smallest, 0)
