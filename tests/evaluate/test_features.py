import pytest
import torch
from torch.utils.data import Dataset

from liftplace.common.errors import UsageError
from liftplace.data import load_dataset
from liftplace.evaluate import features
from liftplace.evaluate.features import (
    Lite0Features,
    cached_features,
    extract_features,
    open_reference,
    real_features,
)


@pytest.fixture(scope="module")
def network():
    return Lite0Features()


@pytest.fixture(scope="module")
def digits():
    return load_dataset("digits", resolution=16, split="test").images(range(0, 1000, 125))


def test_features_are_the_pooled_input_of_the_networks_own_classifier(network, digits):
    pixels = ((digits + 1) * 127.5).round()
    scaled = torch.nn.functional.interpolate(pixels, (64, 64), mode="bicubic", antialias=True)
    logits = network.network((scaled.clamp(0, 255).expand(-1, 3, -1, -1) - 127) / 128)
    pooled = extract_features(digits, network, description=None)
    assert pooled.shape == (8, 1280) and pooled.dtype == torch.float32
    torch.testing.assert_close(network.network._fc(pooled), logits, rtol=1e-4, atol=1e-4)


def test_features_do_not_depend_on_the_batch_or_on_grey_as_rgb(network, digits):
    whole = extract_features(digits, network, description=None)
    parts = extract_features(digits.expand(-1, 3, -1, -1), network, batch_size=3, description=None)
    torch.testing.assert_close(whole, parts, rtol=1e-4, atol=1e-5)


def test_second_time_comes_from_the_cache(network, digits, tmp_path, monkeypatch):
    first = cached_features(digits, network, cache_dir=tmp_path, description=None)
    assert len(list(tmp_path.iterdir())) == 1
    monkeypatch.setattr(features, "extract_features", None)  # a miss would call it
    assert torch.equal(
        first, cached_features(digits, network, cache_dir=tmp_path, description=None)
    )


def test_other_pixels_miss_the_cache(network, digits, tmp_path):
    first = cached_features(digits, network, cache_dir=tmp_path, description=None)
    other = cached_features(digits.flip(-1), network, cache_dir=tmp_path, description=None)
    assert len(list(tmp_path.iterdir())) == 2
    assert not torch.equal(first, other)


def test_a_damaged_file_is_written_anew(network, digits, tmp_path):
    first = cached_features(digits, network, cache_dir=tmp_path, description=None)
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    file.write_bytes(whole[:100])
    with pytest.warns(UserWarning, match="damaged"):
        again = cached_features(digits, network, cache_dir=tmp_path, description=None)
    assert torch.equal(first, again) and file.read_bytes() == whole


def test_a_folder_that_cannot_be_written_costs_only_the_cache(network, digits, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.warns(UserWarning, match="cannot cache"):
        cached = cached_features(
            digits[:1], network, cache_dir=tmp_path / "file" / "below", description=None
        )
    assert cached.shape == (1, 1280)


def test_default_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("LIFTPLACE_CACHE", str(tmp_path / "own"))
    assert features.default_cache_dir() == tmp_path / "own"
    monkeypatch.delenv("LIFTPLACE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert features.default_cache_dir() == tmp_path / "xdg" / "liftplace"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert features.default_cache_dir() == tmp_path / "home" / ".cache" / "liftplace"


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
def test_images_are_of_all_and_not_shared(num_workers):
    real, other = real_features(Numbered(1001), Mean(), 250, "cpu", num_workers=num_workers)
    assert real.shape == other.shape == (250, 1)
    assert torch.cat([real, other]).unique().numel() == 500  # none twice
    for half in (real, other):
        assert all(40 < ((half // 250) == quarter).sum() < 85 for quarter in range(4))


@pytest.mark.parametrize("length, floor", [(7, True), (8, False)])
def test_without_others(length, floor):
    real, other = real_features(Numbered(length), Mean(), 4, "cpu", floor=floor, description=None)
    assert other is None and real.unique().numel() == 4


def test_split_and_number_of_the_images():
    test = open_reference("digits", 8, 1000, split="test")
    assert torch.equal(
        test[3]["images"], load_dataset("digits", resolution=8, split="test")[3]["images"]
    )
    with pytest.raises(UsageError, match="num_samples is 1001, but --data digits has 1000 images"):
        open_reference("digits", 8, 1001, flag="--data", split="test")
