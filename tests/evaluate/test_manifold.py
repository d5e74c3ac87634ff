import math

import pytest
import torch

from liftplace.evaluate.manifold import precision_recall


def points(count, features=5, seed=0, deviation=1.0):
    generator = torch.Generator().manual_seed(seed)
    return deviation * torch.randn(count, features, generator=generator)


def by_brute_force(real, generated, k):
    """Algorithm 1 of the paper, point by point."""

    def share(inside, manifold):
        balls = [
            (centre, sorted(math.dist(centre, other) for j, other in enumerate(manifold) if j != i))
            for i, centre in enumerate(manifold)
        ]
        found = [any(math.dist(p, centre) <= near[k - 1] for centre, near in balls) for p in inside]
        return sum(found) / len(inside)

    real, generated = real.double().tolist(), generated.double().tolist()
    return share(generated, real), share(real, generated)


@pytest.mark.parametrize("k", [1, 3, 5])
def test_agrees_with_brute_force(k):
    real, generated = points(41), points(53, seed=1, deviation=1.7)
    measured = precision_recall(real, generated, k=k)
    expected = by_brute_force(real, generated, k)
    assert (measured.precision, measured.recall) == pytest.approx(expected, abs=1e-12)
    assert 0 < measured.precision < measured.recall <= 1


def test_by_hand():
    # k = 1. Real balls: 0 and 1 with radius 1, 5 with radius 4. Generated: all with radius 1/2.
    real = torch.tensor([[0.0], [1.0], [5.0]])
    generated = torch.tensor([[-0.25], [-0.75], [9.5], [10.0]])
    measured = precision_recall(real, generated, k=1)
    assert (measured.precision, measured.recall) == (1 / 2, 1 / 3)
    assert precision_recall(real, torch.tensor([[-1.0], [9.0]]), k=1).precision == 1  # on the edge


def test_the_result_does_not_depend_on_the_chunk():
    real, generated = points(40), points(50, seed=1, deviation=1.5)
    whole = precision_recall(real, generated)
    assert all(
        precision_recall(real, generated, chunk_entries=entries) == whole for entries in (1, 130)
    )


def test_fewer_modes_lose_recall_and_noise_loses_precision():
    offsets = 100 * torch.eye(4, 5)
    real = (points(200) + offsets[torch.arange(200) % 4]).float()
    half = points(200, seed=1) + offsets[torch.arange(200) % 2]
    noisy = real[torch.randperm(200, generator=torch.Generator().manual_seed(2))]
    noisy = noisy + points(200, seed=3, deviation=30)
    dropped, blurred = precision_recall(real, half), precision_recall(real, noisy)
    assert dropped.precision > 0.8 and dropped.recall == pytest.approx(0.5, abs=0.1)
    assert blurred.precision < 0.2 and blurred.recall > 0.8


def test_copies_far_from_the_origin_are_at_distance_zero():
    real = points(20, features=64) + 1000
    collapsed = real[:1].expand(20, -1).contiguous()
    # One real image, twenty times: its ball has radius zero and holds that image alone.
    assert precision_recall(real, collapsed).recall == 1 / 20
    assert precision_recall(real, collapsed).precision == 1
    assert precision_recall(real, real).recall == 1


@pytest.mark.parametrize(
    "real, generated, k, message",
    [
        (torch.zeros(3, 2), torch.zeros(5, 2), 3, "k = 3 with 3 images"),
        (torch.zeros(5, 2), torch.zeros(5, 2), 0, "at least 1"),
        (torch.zeros(5, 2), torch.zeros(5, 3), 1, "features"),
        (torch.zeros(5, 2), torch.full((5, 2), math.nan), 1, "finite"),
    ],
)
def test_bad_input(real, generated, k, message):
    with pytest.raises(ValueError, match=message):
        precision_recall(real, generated, k=k)
