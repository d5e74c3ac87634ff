import pytest
import torch

from liftplace.evaluate.intervals import half_sample_interval
from liftplace.evaluate.scores import frechet_distance, kernel_distance


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def mean(rows):
    return rows.mean().item()


def width(interval):
    return interval.high - interval.low


def test_a_mean_has_the_textbook_interval():
    rows = normal(400)
    interval = half_sample_interval(mean, rows, draws=2000)
    expected = 1.96 * rows.std().item() / 400**0.5
    assert interval.high - mean(rows) == pytest.approx(expected, rel=0.1)
    assert mean(rows) - interval.low == pytest.approx(expected, rel=0.1)
    narrow = half_sample_interval(mean, rows, draws=2000, level=0.6827)
    assert width(narrow) == pytest.approx(2 * expected / 1.96, rel=0.1)


def test_two_sets_are_drawn_independently_and_pairs_are_not():
    first, second = normal(300), normal(300, seed=1)
    independent = half_sample_interval(lambda x, y: mean(x) - mean(y), first, second, draws=2000)
    expected = 2 * 1.96 * (2 / 300) ** 0.5
    assert width(independent) == pytest.approx(expected, rel=0.15)
    shifted = (first, first + 0.1 * second)
    pairs = half_sample_interval(lambda x, y: mean(y - x), *shifted, paired=True, draws=2000)
    assert width(pairs) == pytest.approx(expected / 2**0.5 / 10, rel=0.15)


@pytest.mark.parametrize("distance", [frechet_distance, kernel_distance])
def test_distances_spread_over_repetitions_as_the_interval_says(distance):
    def sets(seed):
        return normal(80, 4, seed=2 * seed), 0.5 + 1.3 * normal(80, 4, seed=2 * seed + 1)

    repetitions = torch.tensor([distance(*sets(seed)) for seed in range(200)])
    intervals = [half_sample_interval(distance, *sets(seed), draws=60) for seed in range(40)]
    widths = torch.tensor([width(interval) for interval in intervals])
    assert widths.mean().item() == pytest.approx(2 * 1.96 * repetitions.std().item(), rel=0.25)
    # They hold the mean of the score at this N, its bias included; at N = 80, not quite 95 in 100.
    held = sum(interval.low <= repetitions.mean() <= interval.high for interval in intervals)
    assert held >= 0.8 * 40


def test_drawing_with_replacement_would_be_biased_where_this_is_not():
    real, other = normal(60, 40, seed=1), normal(60, 40, seed=2)
    score = frechet_distance(real, other)
    generator = torch.Generator().manual_seed(0)

    def replicate():
        rows = [torch.randint(60, (60,), generator=generator) for _ in range(2)]
        return frechet_distance(real[rows[0]], other[rows[1]])

    assert min(replicate() for _ in range(50)) > score
    interval = half_sample_interval(frechet_distance, real, other, draws=50)
    assert interval.low < score < interval.high


def test_the_seed_fixes_the_interval():
    rows = normal(50)
    first = half_sample_interval(mean, rows, draws=20)
    assert first == half_sample_interval(mean, rows, draws=20)
    assert first != half_sample_interval(mean, rows, draws=20, seed=1)
    assert (first.level, first.draws) == (0.95, 20)


@pytest.mark.parametrize(
    "lengths, options, message",
    [
        ((3,), {}, "at least 4 rows"),
        ((8,), {"draws": 1}, "2 draws"),
        ((8,), {"level": 1.0}, "level"),
        ((8, 9), {"paired": True}, r"paired.*\[8, 9\]"),
    ],
)
def test_bad_input(lengths, options, message):
    with pytest.raises(ValueError, match=message):
        half_sample_interval(mean, *(normal(length) for length in lengths), **options)
