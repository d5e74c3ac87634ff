"""Small square grey images, all of them in memory."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset

from liftplace.data.size import Resolution, height_width


class GreyImages(Dataset):
    """Grey images with labels.

    An item is ``{"images": (1, height, width)}``, float32 in [-1, 1], with `classes` also
    ``class_labels``, 0-d int64.

    Args:
        pixels: (images, 1, height, width), float32 in [-1, 1] or uint8, which is read as
            0..255 and takes a quarter of the memory.
        labels: (images,), uint8.
        classes: their names, or None for items without labels.
    """

    channels = 1
    has_captions = False

    def __init__(self, pixels: Tensor, labels: Tensor, classes: Sequence[str] | None) -> None:
        self.labels = labels
        self.classes = None if classes is None else tuple(classes)
        self._pixels = pixels

    def __len__(self) -> int:
        return len(self._pixels)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"images": _in_range(self._pixels[index])} | self.conditions(index)

    def conditions(self, index: int) -> dict[str, Tensor]:
        """The item without its image."""
        return {} if self.classes is None else {"class_labels": self.labels[index].long()}

    def images(self, indices: Sequence[int] | Tensor) -> Tensor:
        """The images of these indices as one batch (len(indices), 1, height, width)."""
        return _in_range(self._pixels[torch.as_tensor(indices, dtype=torch.int64)])


def scale(pixels: Tensor, resolution: Resolution) -> Tensor:
    """Images (images, rows, columns) in 0..255 to (images, 1, height, width), float32 in [-1, 1],
    by an antialiased bicubic filter."""
    images, size = pixels[:, None].float() / 127.5 - 1, height_width(resolution)
    if size == pixels.shape[1:]:
        return images
    scaled = F.interpolate(images, size, mode="bicubic", antialias=True, align_corners=False)
    return scaled.clamp(-1, 1)  # bicubic overshoots beside an edge


def _in_range(pixels: Tensor) -> Tensor:
    return pixels if pixels.is_floating_point() else pixels / 127.5 - 1
