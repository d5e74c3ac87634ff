import json

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from liftplace.common.errors import UsageError
from liftplace.evaluate.scores import Moments
from liftplace.evaluate.statistics import load_statistics, save_statistics


class Network(torch.nn.Identity):
    name, resize, weights_sha256 = "Own", "not at all", "abc"


class OtherWeights(Network):
    weights_sha256 = "abd"


FEATURES = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "stats.safetensors"
    save_statistics(path, FEATURES, -FEATURES, Network(), {"resolution": 8, "split": "test"})
    return path


def test_all_comes_back(file):
    found = load_statistics(file, Network(), 8, 20)
    assert torch.equal(found.real, FEATURES) and torch.equal(found.other_real, -FEATURES)
    assert found.about["split"] == "test" and len(found.about["sha256"]) == 64


def test_fewer_samples_take_the_first(file):
    found = load_statistics(file, Network(), 8, 5)
    assert torch.equal(found.real, FEATURES[:5]) and torch.equal(found.other_real, -FEATURES[:5])


@pytest.mark.parametrize("has_floor", [True, False])
def test_a_file_of_a_split_by_turns_is_split_anew(file, has_floor):
    """Earlier versions took one image of two; their files say nothing of an order."""
    with safe_open(file, "pt") as opened:
        about = json.loads(opened.metadata()["liftplace"])
    del about["shuffle_seed"]
    tensors = {"real": torch.zeros(20, 3)} | (
        {"other_real": torch.ones(20, 3)} if has_floor else {}
    )
    save_file(tensors, file, {"liftplace": json.dumps(about)})
    found = load_statistics(file, Network(), 8, 20)
    if not has_floor:
        assert found.other_real is None and (found.real == 0).all()
        return
    ones = [int((half == 1).all(1).sum()) for half in (found.real, found.other_real)]
    assert sum(ones) == 20 and min(ones) > 4


def test_without_a_floor(tmp_path):
    path = tmp_path / "stats.safetensors"
    save_statistics(path, FEATURES, None, Network(), {"resolution": 8})
    assert load_statistics(path, Network(), 8, 20).other_real is None


@pytest.mark.parametrize(
    "network, resolution, count, message",
    [
        (OtherWeights(), 8, 20, "another feature_network_sha256: abc there, abd here"),
        (Network(), 16, 20, "another resolution: 8 there, 16 here"),
        (Network(), 8, 21, "--num_samples is 21, but .* has 20 images"),
    ],
)
def test_what_does_not_fit(file, network, resolution, count, message):
    with pytest.raises(UsageError, match=message):
        load_statistics(file, network, resolution, count)


def test_moments(tmp_path):
    path = tmp_path / "stats.npz"
    np.savez(path, mu=np.arange(3), sigma=np.eye(3, dtype=np.float32))
    found = load_statistics(path, Network(), 8, 1000)
    assert isinstance(found.real, Moments) and found.other_real is None
    assert found.real.mean.tolist() == [0, 1, 2] and found.real.covariance.dtype == torch.float64


@pytest.mark.parametrize(
    "arrays, message",
    [
        ({"mu": np.zeros(3)}, "must hold arrays mu and sigma"),
        ({"mu": np.zeros(3), "sigma": np.eye(2)}, r"got \(3,\) and \(2, 2\)"),
        ({"mu": np.full(2, np.nan), "sigma": np.eye(2)}, "must be finite"),
        ({"mu": np.array([None]), "sigma": np.eye(1)}, "allow_pickle=False"),
    ],
)
def test_arrays_that_are_no_moments(tmp_path, arrays, message):
    path = tmp_path / "stats.npz"
    np.savez(path, **arrays)
    with pytest.raises(UsageError, match=message):
        load_statistics(path, Network(), 8, 10)


@pytest.mark.parametrize("name", ["none.npz", "none.safetensors", "bad.npz", "bad.safetensors"])
def test_files_that_cannot_be_read(tmp_path, name):
    for bad in ("bad.npz", "bad.safetensors"):
        (tmp_path / bad).write_text("hello")
    with pytest.raises(UsageError, match="--reference_stats .* cannot be used"):
        load_statistics(tmp_path / name, Network(), 8, 10)


def test_another_safetensors_file(tmp_path):
    path = tmp_path / "other.safetensors"
    save_file({"real": FEATURES}, path)
    with pytest.raises(UsageError, match="--save_reference_stats did not write it"):
        load_statistics(path, Network(), 8, 10)
