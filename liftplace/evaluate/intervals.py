"""Confidence intervals of scores, from the features that the scores were computed on."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm.auto import tqdm


@dataclass(frozen=True)
class Interval:
    """Where the mean of a score lies over repetitions with the same numbers of images."""

    low: float
    high: float
    level: float  # confidence, in (0, 1)
    draws: int


def half_sample_interval(
    score: Callable[..., float],
    *sets: Tensor,
    paired: bool = False,
    level: float = 0.95,
    draws: int = 200,
    seed: int = 0,
    description: str | None = None,
) -> Interval:
    """A bootstrap interval, from percentiles over random halves drawn without replacement.

    The ordinary bootstrap draws N of N with replacement. Its copies are fatal here: they make the
    covariance of features smaller in rank, so that every replicate of a Frechet distance lies
    above the score itself, and they make the radii of a k-NN manifold zero. A random half has no
    copies, and to first order its score deviates from the mean of all halves as the score of the
    full sets does from its expectation: the variance 1/(N/2) - 1/N of a mean of a half about the
    full one is the variance 1/N of the full one. The bias of a half, which is larger, cancels
    because only deviations from the mean of the halves are used.

    So the interval holds the score's expectation at this N, bias of this N included. It is not one
    for N to infinity, and it says nothing of another training run. With few images it
    holds somewhat less often than `level` says; tests/evaluate/test_intervals.py counts.

    Args:
        score: called with as many subsets as there are sets, gives a number.
        sets: (N, ...) and (M, ...) and so on, N >= 4, drawn from independently.
        paired: row i of every set belongs together: all sets keep the same rows.
        level: of confidence.
        draws: halves scored, at least 2.
        seed: of the draws; the same seed gives the same interval.
        description: label of a progress bar; ``None`` for no bar.

    Raises:
        ValueError: too few rows or draws, a level outside (0, 1), pairs of different lengths.

    Source: Politis and Romano, Annals of Statistics 22 (1994) (subsampling); Shao and
    Wu, Annals of Statistics 17 (1989) (half of the rows: no rescaling).
    """
    lengths = [len(rows) for rows in sets]
    if min(lengths) < 4 or draws < 2 or not 0 < level < 1:
        raise ValueError(
            "need sets of at least 4 rows, 2 draws and a level in (0, 1), got "
            f"{lengths} rows, {draws} draws and level {level}"
        )
    if paired and len(set(lengths)) > 1:
        raise ValueError(f"paired sets must have as many rows as each other, got {lengths}")
    generator = torch.Generator().manual_seed(seed)
    halves = []
    for _ in tqdm(range(draws), desc=description, disable=description is None):
        kept = [torch.randperm(length, generator=generator)[: length // 2] for length in lengths]
        kept = [kept[0]] * len(sets) if paired else kept
        subsets = [rows[index.to(rows.device)] for rows, index in zip(sets, kept, strict=True)]
        halves.append(score(*subsets))
    halves = torch.tensor(halves, dtype=torch.float64)
    tails = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64)
    below, above = (halves - halves.mean()).quantile(tails).tolist()
    full = score(*sets)
    # Not reflected (full - above, full - below): distances spread more where they are larger, and
    # the reflected interval of a score that came out low is then too short.
    return Interval(low=full + below, high=full + above, level=level, draws=draws)
