"""Means over seeds with intervals, and ratios paired by seed."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from scipy.special import stdtrit

LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds; low and high, its interval, are None where there is one seed."""

    value: float
    low: float | None
    high: float | None
    count: int


def mean(values: Iterable[float], level: float = LEVEL) -> Estimate | None:
    """The arithmetic mean with Student's t interval; None for no values.

    The interval holds the mean of infinitely many seeds with probability `level` where the values
    are independent and normal.
    """
    values = list(values)
    if not values:
        return None
    count = len(values)
    centre = math.fsum(values) / count
    if count == 1:
        return Estimate(centre, None, None, 1)
    variance = math.fsum((value - centre) ** 2 for value in values) / (count - 1)
    reach = float(stdtrit(count - 1, (1 + level) / 2)) * math.sqrt(variance / count)
    return Estimate(centre, centre - reach, centre + reach, count)


def geometric_mean(values: Iterable[float], level: float = LEVEL) -> Estimate | None:
    """The geometric mean with the t interval of the logarithms' mean; None for no values.

    Raises:
        ValueError: a value is not positive.
    """
    values = list(values)
    if bad := [value for value in values if not value > 0]:
        raise ValueError(f"a geometric mean needs positive values, got {bad[0]}")
    logs = mean(map(math.log, values), level)
    if logs is None or logs.low is None:
        return logs and Estimate(math.exp(logs.value), None, None, logs.count)
    return Estimate(*(math.exp(end) for end in (logs.value, logs.low, logs.high)), logs.count)


def paired_ratio(scores: Mapping[int, float], others: Mapping[int, float]) -> Estimate | None:
    """The geometric mean of score / other's over the seeds that both have, with its interval.

    A seed decides the student's first weights, the data's order and the noise, so what it does to
    both cancels. None where they share no seed.

    Args:
        scores, others: a positive value by seed.
    """
    seeds = sorted(scores.keys() & others.keys())
    return geometric_mean(scores[seed] / others[seed] for seed in seeds)
