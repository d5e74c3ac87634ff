"""A folder of images."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torch.utils.data import Dataset

from liftplace.common.errors import UsageError
from liftplace.data._checks import SPLITS, check_resolution, check_split
from liftplace.data.annotations import class_names, class_of, read_captions

SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"})


class ImageFolder(Dataset):
    """Every image below a folder, in the order of their paths, as RGB.

    An item is ``{"images": (3, resolution, resolution)}``, float32 in [-1, 1], with
    ``class_labels`` (0-d, int64) and ``captions`` (str) where asked for. Files are read when they
    are needed.

    Args:
        folder: searched with its subfolders for files named like images. If it has a subfolder
            ``train`` or ``test``, the one named by ``split`` is searched instead.
        resolution: height and width of every item, in pixels; Lanczos filter.
        split: ``"train"`` or ``"test"``.
        center_crop: cut the central square out first; otherwise the whole image is scaled to a
            square.
        labels: the class of an image is the number, by name, of the subfolder that it is in.
        caption_column: name of the captions in the ``metadata.jsonl`` files; None for no captions.

    Raises:
        UsageError: unknown split, bad resolution, a folder that is missing or has no image, an
            image without class or caption; and on reading an item, a file that is no readable
            image, with its name.
    """

    channels = 3

    def __init__(
        self,
        folder: str | Path,
        *,
        resolution: int,
        split: str = "train",
        center_crop: bool = False,
        labels: bool = False,
        caption_column: str | None = None,
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
        self.classes = class_names(self.folder) if labels else None
        self._labels = self._captions = None
        if labels:
            self._labels = [class_of(path, self.folder, self.classes) for path in self.paths]
        if caption_column is not None:
            self._captions = read_captions(self.folder, self.paths, caption_column)
        self.has_captions = self._captions is not None

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> dict[str, Tensor | str]:
        item = {"images": self._read(self.paths[index])}
        if self._labels is not None:
            item["class_labels"] = torch.tensor(self._labels[index])
        if self._captions is not None:
            item["captions"] = self._captions[index]
        return item

    def identity(self) -> str:
        """Text that changes with the images, labels and captions."""
        digest = hashlib.sha256()
        for number, path in enumerate(self.paths):
            label = self._labels and self._labels[number]
            caption = self._captions and self._captions[number]
            name = path.relative_to(self.folder).as_posix()
            digest.update(repr((name, path.stat().st_size, label, caption)).encode())
        return digest.hexdigest()

    def images(self, indices: Sequence[int] | Tensor) -> Tensor:
        """The images of these indices as one batch (len(indices), 3, resolution, resolution)."""
        return torch.stack([self._read(self.paths[int(index)]) for index in indices])

    def _read(self, path: Path) -> Tensor:
        try:
            with Image.open(path) as file:
                return to_tensor(file, self.resolution, self.center_crop)
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            # SyntaxError and ValueError are what PIL's decoders raise on some damaged files.
            reason = "not an image" if isinstance(error, UnidentifiedImageError) else str(error)
            raise UsageError(f"cannot read image {path}: {reason}") from error


def to_tensor(image: Image.Image, resolution: int, center_crop: bool) -> Tensor:
    """An image to (3, resolution, resolution) in [-1, 1], the right way up."""
    image = ImageOps.exif_transpose(image).convert("RGB")
    if center_crop:
        image = _central_square(image)
    image = image.resize((resolution, resolution), Image.Resampling.LANCZOS)
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
