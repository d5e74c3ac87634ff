"""The real images that samples are scored against, and their features."""

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Subset
from tqdm.auto import tqdm

from liftplace.common.errors import UsageError
from liftplace.data import CachedLatents, load_dataset
from liftplace.evaluate.features import cached_features

BATCH = 128  # images read, and looked up in the cache, at a time


def open_reference(
    name_or_folder: str, resolution: int, count: int, *, flag: str = "--reference_dir", **options
) -> Dataset:
    """A dataset of at least `count` real images.

    Args:
        name_or_folder, resolution: of `liftplace.data.load_dataset`.
        count: of the samples that are scored against them.
        flag: that named them, for the errors.
        options: of `liftplace.data.load_dataset`.

    Raises:
        UsageError: no such images, too few of them, or latents.
    """
    dataset = load_dataset(name_or_folder, resolution=resolution, **options)
    if isinstance(dataset, CachedLatents):
        raise UsageError(f"{flag} {name_or_folder} holds latents: give the images")
    if len(dataset) < count:
        raise UsageError(
            f"--num_samples is {count}, but {flag} {name_or_folder} has {len(dataset)} images: a "
            "score needs as many real ones"
        )
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
    """Features of `count` real images, spread evenly over all, and of as many others.

    Args:
        dataset: of at least `count` items with `images`.
        network: see `liftplace.evaluate.networks`; where its weights are.
        count: images.
        device: of the result.
        floor: whether the others are wanted, for the score of real images.
        num_workers: processes that read images ahead.
        description: label of the progress bar; ``None`` for no bar.

    Returns:
        (count, features) float32, and the same of the others, or None where the dataset has fewer
        than twice as many images or they are not wanted.
    """
    has_floor = floor and len(dataset) >= 2 * count
    taken = 2 * count if has_floor else count
    indices = (torch.arange(taken) * len(dataset) // taken).tolist()
    loader = DataLoader(Subset(dataset, indices), batch_size=BATCH, num_workers=num_workers)
    batches = tqdm(loader, desc=description, disable=description is None)
    parts = [cached_features(items["images"], network, description=None) for items in batches]
    features = torch.cat(parts).to(device)
    return (features[::2], features[1::2]) if has_floor else (features, None)
