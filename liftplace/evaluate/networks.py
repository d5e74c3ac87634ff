"""Feature networks by name: the packaged one, Inception from its weights, or the user's own."""

import hashlib
import inspect
from importlib import import_module
from pathlib import Path

import torch
from torch import Tensor, nn

from liftplace.common.errors import UsageError
from liftplace.evaluate.features import Lite0Features

LITE0, INCEPTION = "lite0", "inception"


def load_network(name: str = LITE0, weights: str | Path | None = None) -> nn.Module:
    """The network that features come from, frozen, on the CPU.

    It has ``name``, ``distance`` (what a Frechet distance on it is called), ``resize`` (what it
    does to the size of an image) and ``weights_sha256``; see `Lite0Features`.

    Args:
        name: ``"lite0"``, ``"inception"`` or ``module:attr``, see `OwnNetwork`.
        weights: file of Inception's weights, as torch-fidelity converts them; downloaded by
            default.

    Raises:
        UsageError: no such network, a package that is missing, weights that do not fit.
    """
    if weights is not None and name != INCEPTION:
        raise UsageError(f"feature_weights is for feature_network inception, got {name!r}")
    if name == LITE0:
        return Lite0Features()
    if name == INCEPTION:
        return InceptionFeatures(weights)
    if ":" in name:
        return OwnNetwork(name)
    raise UsageError(
        f"there is no feature_network {name!r}: give {LITE0}, {INCEPTION} or module:attr"
    )


class OwnNetwork(nn.Module):
    """A network of the user's: an ``nn.Module``, or a callable that returns one.

    Args:
        place: ``module:attr``, where Python finds it.

    Args (forward):
        images: (N, channels, height, width), float32 in [-1, 1], as the dataset or model gives
            them: the network scales them itself.

    Returns (forward):
        (N, features) float32.

    Raises:
        UsageError: nothing there, or no network; features of another shape.
    """

    resize = "by the network"

    def __init__(self, place: str) -> None:
        super().__init__()
        module, _, self.name = place.partition(":")
        try:
            attribute = getattr(import_module(module), self.name)
        except (ImportError, ValueError, AttributeError) as error:
            raise UsageError(
                f"feature_network {place!r} cannot be imported: {error} (PYTHONPATH=. finds "
                "modules of this folder)"
            ) from error
        is_network = isinstance(attribute, nn.Module)
        self.network = attribute if is_network else _built(attribute, place)
        self.network.requires_grad_(False)
        self.eval()
        self.place = place
        self.distance = f"FD-{self.name}"
        self.weights_sha256 = _hash_of(self.network, import_module(module))

    def forward(self, images: Tensor) -> Tensor:
        features = self.network(images)
        if not isinstance(features, Tensor) or features.ndim != 2 or len(features) != len(images):
            result = tuple(features.shape) if isinstance(features, Tensor) else type(features)
            raise UsageError(
                f"feature_network {self.place!r} must give (N, features) for N = {len(images)} "
                f"images, it gave {result}"
            )
        return features.float()


class InceptionFeatures(nn.Module):
    """The 2,048 pooled features of FID's Inception, by torch-fidelity.

    Args:
        weights: ``weights-inception-2015-12-05-6726825d.pth`` of torch-fidelity's releases, or a
            file like it; by default that file from torch's hub cache, where it is downloaded once.

    Args (forward):
        images: (N, 1 or 3, height, width), float in [-1, 1]. They are rounded to 8 bits, and
            scaled to 299 x 299 as TensorFlow 1 does.

    Returns (forward):
        (N, 2048) float32.

    Raises:
        UsageError: weights that cannot be downloaded or read, torch-fidelity is not installed.
    """

    name, distance = "Inception", "FID"
    resize = "299 x 299, bilinear, as TensorFlow 1"

    def __init__(self, weights: str | Path | None) -> None:
        super().__init__()
        try:
            from torch_fidelity.feature_extractor_inceptionv3 import (
                URL_INCEPTION_V3,
                FeatureExtractorInceptionV3,
            )
        except ImportError as error:
            raise UsageError(
                f"feature_network inception cannot be loaded ({error}): pip install torch-fidelity "
                "torchvision"
            ) from error
        weights = weights or _downloaded(URL_INCEPTION_V3)
        _check_only_tensors(weights)
        self.weights_sha256 = hashlib.sha256(Path(weights).read_bytes()).hexdigest()
        try:
            self.network = FeatureExtractorInceptionV3(
                "inception-v3-compat", ["2048"], feature_extractor_weights_path=str(weights)
            )
        except (RuntimeError, TypeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise UsageError(f"feature_weights {weights} do not fit: {reason}") from error

    def forward(self, images: Tensor) -> Tensor:
        pixels = ((images.float() + 1) * 127.5).round().clamp(0, 255).byte()
        return self.network(pixels.expand(-1, 3, -1, -1))[0]

    def logits(self, features: Tensor) -> Tensor:
        """(N, 2048) to (N, 1008): without the bias, as the original inception score has it."""
        return features @ self.network.fc.weight.T.to(features)


def _downloaded(address: str) -> Path:
    """The file in torch's hub cache of what is at an address whose name ends in its hash."""
    file = Path(torch.hub.get_dir()) / "checkpoints" / address.rsplit("/", 1)[-1]
    if not file.is_file():
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(address, str(file), file.stem.rsplit("-", 1)[-1])
        except (OSError, RuntimeError) as error:  # no connection; another hash
            raise UsageError(
                f"{address} cannot be downloaded ({error}): fetch it elsewhere and name its path "
                "with --feature_weights"
            ) from error
    return file


def _check_only_tensors(weights: str | Path) -> None:
    """Raises UsageError unless the file holds nothing that could run: torch-fidelity would run it.

    Every error counts: torch has a dozen kinds for a pickle that it does not trust.
    """
    try:
        torch.load(weights, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UsageError(f"feature_weights {weights} cannot be read: {error.strerror}") from error
    except Exception as error:
        raise UsageError(f"feature_weights {weights} holds something other than tensors") from error


def _built(factory, place: str) -> nn.Module:
    if not callable(factory):
        raise UsageError(
            f"feature_network {place!r} must be an nn.Module or a callable that returns one, got "
            f"{type(factory).__name__}"
        )
    network = factory()
    if not isinstance(network, nn.Module):
        raise UsageError(
            f"feature_network {place!r} must return an nn.Module, got {type(network).__name__}"
        )
    return network


def _hash_of(network: nn.Module, module) -> str:
    """SHA-256 of the weights and of the source files of the network's class and of its module.

    Code that those files import is not seen: clear the cache after a change of it.
    """
    digest = hashlib.sha256()
    for place in (module, type(network)):
        try:
            digest.update(Path(inspect.getfile(place)).read_bytes())
        except (TypeError, OSError):  # typed into an interpreter
            digest.update(repr(place).encode())
    digest.update(hash_of_weights(network).encode())
    return digest.hexdigest()


def hash_of_weights(network: nn.Module) -> str:
    """SHA-256 of the names, types, shapes and values of the weights and buffers."""
    digest = hashlib.sha256()
    tensors = {n: x for n, x in network.state_dict().items() if isinstance(x, torch.Tensor)}
    for name, value in sorted(tensors.items()):
        digest.update(repr((name, str(value.dtype), tuple(value.shape))).encode())
        digest.update(
            value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
        )
    return digest.hexdigest()
