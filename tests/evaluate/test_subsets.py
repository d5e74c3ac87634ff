import numpy as np
import pytest
import torch
from PIL import Image

from liftplace.common.errors import UsageError
from liftplace.data import load_dataset
from liftplace.evaluate.features import open_reference, real_features
from liftplace.evaluate.manifold import precision_recall
from liftplace.evaluate.scores import frechet_distance
from liftplace.evaluate.subsets import shuffled, spread, too_few_images


class Pixels(torch.nn.Module):
    name, resize, weights_sha256 = "Pixels", "not at all", "0"

    def forward(self, images):
        return images.mean(1).flatten(1)


@pytest.fixture
def alternating(tmp_path, monkeypatch):
    """48 noisy pictures: a dark one, a bright one, a dark one, and so on."""
    monkeypatch.setenv("LIFTPLACE_CACHE", str(tmp_path / "cache"))
    noise = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    for number in range(48):
        pixels = noise.integers(20, 60, (2, 2, 3)) + 160 * (number % 2)
        Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "images" / f"{number:02}.png")
    return str(tmp_path / "images")


def test_two_classes_in_turn_are_in_both_halves(alternating):
    dataset = open_reference(alternating, 2, 24)
    real, other = real_features(dataset, Pixels(), 24, "cpu", description=None)
    for half in (real, other):
        assert 6 <= (half.mean(1) > 0).sum() <= 18
    found = precision_recall(real, other)
    assert found.precision > 0.9 and found.recall > 0.9  # 0 of a split by stride
    by_stride = torch.cat([real, other])
    bright = by_stride.mean(1) > 0
    unlike = frechet_distance(by_stride[bright], by_stride[~bright])
    assert frechet_distance(real, other) < 0.1 * unlike


def test_a_part_without_a_floor_is_of_both_classes(alternating):
    dataset = open_reference(alternating, 2, 12)
    real, other = real_features(dataset, Pixels(), 12, "cpu", floor=False, description=None)
    assert other is None and 3 <= (real.mean(1) > 0).sum() <= 9
    both, _ = real_features(dataset, Pixels(), 24, "cpu", description=None)
    assert torch.equal(both[:12], real)  # more images only append


def test_a_permutation_that_never_changes():
    assert shuffled(8, 8).tolist() == [6, 2, 1, 7, 3, 0, 5, 4]
    assert torch.equal(shuffled(1000, 100), shuffled(1000, 1000)[:100])
    assert shuffled(1000, 1000).sort().values.tolist() == list(range(1000))
    with pytest.raises(ValueError, match="at most 1000"):
        shuffled(1000, 1001)


def test_spread_covers_every_class_alike():
    labels = load_dataset("digits", resolution=16, split="test").labels
    for count in (50, 500, 1000):
        assert torch.bincount(labels[spread(1000, count)].long()).tolist() == [count // 10] * 10
    with pytest.raises(ValueError, match="at most 1000"):
        spread(1000, 1001)


def test_the_number_that_fits_is_named():
    error = too_few_images(1000, "--reference_dir a", 300, fewest=8)
    assert isinstance(error, UsageError)
    assert "--num_samples is 1000, but --reference_dir a has 300 images" in str(error)
    assert "give --num_samples 300 or less (150 or less for the score of real" in str(error)
    assert "(" not in str(too_few_images(1000, "a", 15, fewest=8))
    assert str(too_few_images(1000, "a", 5, fewest=8)).endswith("give 8 images or more")
