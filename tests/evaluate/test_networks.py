import hashlib
import importlib.util
import re

import pytest
import torch

from liftplace.common.errors import UsageError
from liftplace.evaluate import networks
from liftplace.evaluate.features import cached_features, extract_features
from liftplace.evaluate.networks import load_network

SOURCE = """
import torch
from torch import nn

SCALE = 1.0

class Pooled(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.full((3,), SCALE))
    def forward(self, images):
        return images.mean(dim=(2, 3)) * self.weight

class Maps(nn.Module):
    def forward(self, images):
        return images

ready = nn.Flatten()
number = 3

def no_network():
    return 3
"""
INCEPTION_MISSING = importlib.util.find_spec("torch_fidelity") is None


@pytest.fixture
def write_module(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)

    def write(name, source=SOURCE):
        (tmp_path / f"{name}.py").write_text(source)
        importlib.invalidate_caches()
        return name

    return write


def images(count=3):
    return torch.rand(count, 3, 4, 4, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_own_network_gives_its_features_and_names_itself(write_module):
    network = load_network(f"{write_module('own_a')}:Pooled")
    given = extract_features(images(), network, batch_size=2, description=None)
    torch.testing.assert_close(given, images().mean(dim=(2, 3)))
    assert (network.name, network.distance) == ("Pooled", "FD-Pooled")
    assert not network.training and not any(p.requires_grad for p in network.parameters())


def test_a_module_that_is_built_already_and_has_no_weights(write_module):
    network = load_network(f"{write_module('own_b')}:ready")
    given = extract_features(images(), network, description=None)
    assert torch.equal(given, images().flatten(1))


def test_hash_follows_weights_and_source(write_module):
    first = load_network(f"{write_module('own_c')}:Pooled").weights_sha256
    assert load_network("own_c:Pooled").weights_sha256 == first
    same = load_network(f"{write_module('own_d')}:Pooled").weights_sha256
    source = SOURCE.replace("images.mean(", "2 * images.mean(")
    other_code = load_network(f"{write_module('own_e', source)}:Pooled").weights_sha256
    assert re.fullmatch("[0-9a-f]{64}", first) and same == first and other_code != first
    network = load_network("own_c:ready")
    assert network.weights_sha256 != first


def test_hash_follows_weights_alone(write_module):
    module = importlib.import_module(write_module("own_f"))
    module.seen = module.Pooled()
    first = load_network("own_f:seen").weights_sha256
    with torch.no_grad():
        module.seen.weight[0] = 7
    assert load_network("own_f:seen").weights_sha256 != first


def test_networks_do_not_share_a_cache(write_module, tmp_path):
    write_module("own_g")
    options = {"cache_dir": tmp_path / "cache", "description": None}
    for name in ("Pooled", "ready", "Pooled"):
        network = load_network(f"own_g:{name}")
        expected = extract_features(images(), network, description=None)
        assert torch.equal(cached_features(images(), network, **options), expected)
    assert len(list((tmp_path / "cache").iterdir())) == 2


@pytest.mark.parametrize(
    "name, message",
    [
        ("vgg", "there is no feature_network 'vgg'"),
        ("no_such_module:net", "No module named 'no_such_module'"),
        (":net", "cannot be imported"),
        ("own_h:nothing", "no attribute 'nothing'"),
        ("own_h:number", "must be an nn.Module or a callable.*got int"),
        ("own_h:no_network", "must return an nn.Module, got int"),
    ],
)
def test_what_is_no_network(write_module, name, message):
    write_module("own_h")
    with pytest.raises(UsageError, match=message):
        load_network(name)


def test_features_of_another_shape(write_module):
    network = load_network(f"{write_module('own_i')}:Maps")
    with pytest.raises(UsageError, match=r"must give \(N, features\) for N = 3 images.*4, 4"):
        extract_features(images(), network, description=None)


def test_lite0_classifies_with_its_features():
    network = load_network()
    features = extract_features(images(), network, description=None)
    assert network.logits(features).shape == (3, 1000)
    assert (network.name, network.distance) == ("Lite0", "FD-Lite0")


def test_weights_are_inceptions_alone():
    with pytest.raises(UsageError, match="feature_weights is for feature_network inception"):
        load_network("lite0", "weights.pth")


def test_a_file_that_could_run_code_is_refused(tmp_path):
    class Runs:
        def __reduce__(self):
            return print, ("it ran",)

    torch.save({"weight": Runs()}, tmp_path / "runs.pth")
    (tmp_path / "text.pth").write_text("hello")
    torch.save({"weight": torch.ones(1)}, tmp_path / "tensors.pth")
    networks._check_only_tensors(tmp_path / "tensors.pth")
    for name, message in (
        ("runs.pth", "holds something other than tensors"),
        ("text.pth", "holds something other than tensors"),
        ("none.pth", "No such file"),
    ):
        with pytest.raises(UsageError, match=message):
            networks._check_only_tensors(tmp_path / name)


def test_a_download_is_kept_and_is_what_its_name_says(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    content = b"weights"
    digest = hashlib.sha256(content).hexdigest()[:8]
    there = tmp_path / f"net-{digest}.pth"
    there.write_bytes(content)
    file = networks._downloaded(there.as_uri())
    assert file.read_bytes() == content and tmp_path / "home" in file.parents
    there.unlink()
    assert networks._downloaded(there.as_uri()) == file  # from the cache
    for name in ("net-00000000.pth", "net-11111111.pth"):
        if name.startswith("net-0"):
            (tmp_path / name).write_bytes(content)  # the other is missing
        with pytest.raises(UsageError, match="cannot be downloaded.*--feature_weights") as error:
            networks._downloaded((tmp_path / name).as_uri())
        assert "\n" not in str(error.value)


@pytest.mark.skipif(not INCEPTION_MISSING, reason="torch-fidelity is installed")
def test_inception_names_the_package_that_is_missing(tmp_path):
    with pytest.raises(UsageError, match="No module named .torch_fidelity.*pip install"):
        load_network("inception", tmp_path / "weights.pth")
