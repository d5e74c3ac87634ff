"""A folder of images."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torch.utils.data import Dataset

from liftplace.data._checks import SPLITS, check_resolution, check_split
from liftplace.errors import UsageError

SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"})


class ImageFolder(Dataset):
    """Every image below a folder, in the order of their paths, as RGB.

    An item is ``{"images": (3, resolution, resolution)}``, float32 in [-1, 1]. Files are read
    when they are asked for.

    Args:
        folder: searched with its subfolders for files named like images. If it has a subfolder
            ``train`` or ``test``, the one named by ``split`` is searched instead.
        resolution: height and width of every item, in pixels; Lanczos filter.
        split: ``"train"`` or ``"test"``.
        center_crop: cut the central square out first; otherwise the whole image is scaled to a
            square.

    Raises:
        UsageError: unknown split, bad resolution, a folder that is missing or has no image; and
            on reading an item, a file that is no readable image, with its name.
    """

    channels = 3

    def __init__(
        self,
        folder: str | Path,
        *,
        resolution: int,
        split: str = "train",
        center_crop: bool = False,
    ) -> None:
        check_resolution(resolution)
        check_split(split)
        self.resolution = resolution
        self.center_crop = center_crop
        self.folder = _folder_of_split(Path(folder), split)
        files = (path for path in self.folder.rglob("*") if path.suffix.lower() in SUFFIXES)
        self.paths = sorted(path for path in files if path.is_file())
        if not self.paths:
            raise UsageError(
                f"no image in {self.folder}: need files ending in {', '.join(sorted(SUFFIXES))}"
            )

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"images": self._read(self.paths[index])}

    def images(self, indices: Sequence[int] | Tensor) -> Tensor:
        """The images of these indices as one batch (len(indices), 3, resolution, resolution)."""
        return torch.stack([self._read(self.paths[int(index)]) for index in indices])

    def _read(self, path: Path) -> Tensor:
        size = (self.resolution, self.resolution)
        try:
            with Image.open(path) as file:
                image = ImageOps.exif_transpose(file).convert("RGB")
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            # SyntaxError and ValueError are what PIL's decoders raise on some damaged files.
            reason = "not an image" if isinstance(error, UnidentifiedImageError) else str(error)
            raise UsageError(f"cannot read image {path}: {reason}") from error
        if self.center_crop:
            image = _central_square(image)
        image = image.resize(size, Image.Resampling.LANCZOS)
        pixels = torch.from_numpy(np.array(image, dtype=np.float32))  # (height, width, 3)
        return pixels.permute(2, 0, 1) / 127.5 - 1


def _central_square(image: Image.Image) -> Image.Image:
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.crop((left, top, left + side, top + side))


def _folder_of_split(folder: Path, split: str) -> Path:
    if not folder.is_dir():
        raise UsageError(
            f'no folder {folder}: give a folder of images, or "digits" for the packaged digits'
        )
    if any((folder / name).is_dir() for name in SPLITS):
        folder = folder / split
        if not folder.is_dir():
            raise UsageError(f"no folder {folder} for split={split!r}")
    elif split != "train":
        raise UsageError(f"split={split!r} needs a folder {folder / split}")
    return folder
