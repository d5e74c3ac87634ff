"""A folder of images."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import Dataset

from liftplace.common.errors import UsageError
from liftplace.data._checks import check_resize_mode, check_split
from liftplace.data.captions import read_captions
from liftplace.data.folders import (
    class_numbers,
    class_of,
    folder_of_split,
    has_archives,
    picture_files,
)
from liftplace.data.pictures import (
    SUFFIXES,
    UnreadableImageError,
    broken_headers,
    read_picture,
)
from liftplace.data.size import Resolution, check_resolution


class ImageFolder(Dataset):
    """Every image below a folder, in the order of their paths, as RGB.

    An item is ``{"images": (3, height, width)}``, float32 in [-1, 1], with
    ``class_labels`` (0-d, int64) and ``captions`` (str) where asked for. Files are read when they
    are needed.

    Args:
        folder: searched with its subfolders, links too, for files named like images. If its
            subfolders are splits, called train, test or validation, the one named by ``split`` is
            searched instead.
        resolution: height and width of every item, in pixels; Lanczos filter.
        split: ``"train"`` or ``"test"``.
        resize_mode: ``"crop"`` resizes the short side and keeps the middle of the long one;
            ``"squash"`` scales the whole image to a square.
        labels: the class of an image is the number of the subfolder that it is in: its place by
            name, or as a number where all names are numbers.
        class_map: JSON file with the number of each subfolder, instead.
        caption_column: name of the captions in the ``metadata.jsonl`` or ``metadata.csv`` files;
            None for no captions.

    Raises:
        UsageError: unknown split, bad resolution, a folder that is missing or has no image, an
            image without class or caption; and on reading an item, `UnreadableImageError`: a
            file that is no readable image, with its name.
    """

    channels = 3

    def __init__(
        self,
        folder: str | Path,
        *,
        resolution: Resolution,
        split: str = "train",
        resize_mode: str = "crop",
        labels: bool = False,
        class_map: str | Path | None = None,
        caption_column: str | None = None,
    ) -> None:
        check_resolution(resolution)
        check_split(split)
        check_resize_mode(resize_mode)
        self.resolution = resolution
        self.resize_mode = resize_mode
        self.folder = folder_of_split(Path(folder), split)
        self.paths = picture_files(self.folder)
        if not self.paths:
            packed = "; unpack the archives in it" if has_archives(self.folder) else ""
            raise UsageError(
                f"no image in {self.folder}: need files ending in "
                f"{', '.join(sorted(SUFFIXES))}{packed}"
            )
        self.class_numbers = class_numbers(self.folder, class_map) if labels else None
        self.has_class_map = class_map is not None
        self._labels = self._captions = None
        if labels:
            self._labels = [class_of(path, self.folder, self.class_numbers) for path in self.paths]
        if caption_column is not None:
            self._captions = read_captions(self.folder, self.paths, caption_column, Path(folder))
        self.has_captions = self._captions is not None

    @property
    def classes(self) -> tuple[str, ...] | None:
        """Names by number, "" for a number without a subfolder; None without labels."""
        if self.class_numbers is None:
            return None
        names = [""] * (max(self.class_numbers.values()) + 1)
        for name, number in self.class_numbers.items():
            names[number] = name
        return tuple(names)

    def verify(self) -> None:
        """Look at the header of every file.

        Raises:
            UnreadableImageError: files that are no pictures, with their names.
        """
        if problem := broken_headers(self.paths):
            raise UnreadableImageError(problem)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> dict[str, Tensor | str]:
        return {"images": self._read(index)} | self.conditions(index)

    def captions(self) -> list[str]:
        """Of all images; empty without captions."""
        return self._captions or []

    def conditions(self, index: int) -> dict[str, Tensor | str]:
        """The item without its image, which is not read."""
        item = {}
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
            name = "/".join(path.parts[len(self.folder.parts) :])
            digest.update(repr((name, path.stat().st_size, label, caption)).encode())
        return digest.hexdigest()

    def images(self, indices: Sequence[int] | Tensor) -> Tensor:
        """The images of these indices as one batch (len(indices), 3, resolution, resolution)."""
        return torch.stack([self._read(int(index)) for index in indices])

    def _read(self, index: int) -> Tensor:
        return read_picture(self.paths[index], self.resolution, self.resize_mode)
