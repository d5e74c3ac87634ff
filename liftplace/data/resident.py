"""A whole dataset on the device that trains on it, one tensor a field."""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.data import Dataset
from tqdm.auto import tqdm

from liftplace.common.errors import UsageError
from liftplace.data.reading import read_batches

LARGEST = 2 * 2**30  # bytes
SHARE_OF_FREE = 1 / 4  # of the device's memory: the models and their activations need the rest
READ_AT_ONCE = 256  # images


def resides(dataset: Dataset, device: torch.device, choice: str, epochs: float) -> bool:
    """Whether the dataset is to be kept on the device.

    Args:
        choice: "always", "never", or "auto": on a CUDA device, where the images fit and each of
            them is needed at least once.
        epochs: that a run takes.

    Raises:
        UsageError: "always", but its items hold text.
    """
    if choice == "never" or (choice == "auto" and (device.type != "cuda" or epochs < 1)):
        return False
    size = size_of(dataset)
    if choice == "always" and size is None:
        raise UsageError(
            "--dataset_on_device always does not go with captions, which are text: make a cache "
            "with `liftplace encode` first, or leave it at auto"
        )
    if choice == "always":
        return True
    free, _ = torch.cuda.mem_get_info(device)
    return size is not None and size <= min(LARGEST, SHARE_OF_FREE * free)


def size_of(dataset: Dataset) -> int | None:
    """Bytes of all items, by the first; None where they hold more than tensors."""
    fields = dataset[0].values()
    if not all(isinstance(value, Tensor) for value in fields):
        return None
    return len(dataset) * sum(math.prod(value.shape) * value.itemsize for value in fields)


def read_whole(
    dataset: Dataset,
    device: torch.device,
    num_workers: int = 0,
    on_problem: Callable[[str], None] | None = None,
) -> dict[str, Tensor]:
    """Every item, by field: (images, ...) on the device.

    Args:
        dataset: whose items are tensors of the same shapes and types.
        num_workers: processes that read.
        on_problem: of `read_batches`.
    """
    options = {"batch_size": READ_AT_ONCE, "num_workers": num_workers}
    batches, total = read_batches(dataset, on_problem, **options), -(-len(dataset) // READ_AT_ONCE)
    fields, first = {}, 0
    for items in tqdm(batches, total=total, desc="Reading the images", leave=False):
        for name, value in items.items():
            if name not in fields:
                shape = (len(dataset), *value.shape[1:])
                fields[name] = torch.empty(shape, dtype=value.dtype, device=device)
            fields[name][first : first + len(value)] = value
        first += len(value)
    return fields
