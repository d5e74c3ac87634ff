import pytest
import torch
from torch.utils.data import Dataset

from liftplace.common.errors import UsageError
from liftplace.data import load_dataset
from liftplace.evaluate.reference import open_reference, real_features


class Numbered(Dataset):
    """Image i is i everywhere."""

    def __init__(self, length):
        self.length = length

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        return {"images": torch.full((1, 2, 2), float(index))}


class Mean(torch.nn.Module):
    name, resize, weights_sha256 = "Mean", "not at all", "0"

    def forward(self, images):
        return images.mean(dim=(1, 2, 3))[:, None]


@pytest.fixture(autouse=True)
def _quiet_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LIFTPLACE_CACHE", str(tmp_path))


@pytest.mark.parametrize("num_workers", [0, 1])
def test_images_are_spread_over_all_and_not_shared(num_workers):
    real, other = real_features(Numbered(1001), Mean(), 250, "cpu", num_workers=num_workers)
    assert real.shape == other.shape == (250, 1)
    both = torch.cat([real, other]).flatten().sort().values
    assert both.unique().numel() == 500  # none twice
    assert (both.diff() - 2).abs().max() <= 1
    assert (real < other).all()  # in turn


@pytest.mark.parametrize(
    "length, floor, expected", [(7, True, [0, 1, 3, 5]), (8, False, [0, 2, 4, 6])]
)
def test_without_others(length, floor, expected):
    real, other = real_features(Numbered(length), Mean(), 4, "cpu", floor=floor, description=None)
    assert other is None and real.flatten().tolist() == expected


def test_split_and_number_of_the_images():
    test = open_reference("digits", 8, 1000, split="test")
    assert torch.equal(
        test[3]["images"], load_dataset("digits", resolution=8, split="test")[3]["images"]
    )
    with pytest.raises(UsageError, match="num_samples is 1001, but --data digits has 1000 images"):
        open_reference("digits", 8, 1001, flag="--data", split="test")
