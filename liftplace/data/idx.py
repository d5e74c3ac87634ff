"""MNIST-like datasets in IDX files, as Fashion-MNIST, MNIST and KMNIST are published.

The format: two zero bytes, the type of the values (8 for uint8), the number of axes, the length of
each axis as a big-endian uint32, and the values (yann.lecun.com/exdb/mnist).
"""

import gzip
import hashlib
import math
import struct
import zlib
from pathlib import Path

import torch
from torch import Tensor

from liftplace.common.errors import UsageError
from liftplace.data._checks import check_split
from liftplace.data.grey import GreyImages, scale
from liftplace.data.size import Resolution, check_resolution

FASHION_FOLDER = "/usr/share/datasets/fashion-mnist"
FASHION_CLASSES = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)
PREFIXES = {"train": "train", "test": "t10k"}
IMAGES, LABELS = "images-idx3-ubyte", "labels-idx1-ubyte"
UINT8 = 8
CHUNK = 4096  # images scaled at a time, for the memory that their float32 takes


def has_idx_files(folder: Path) -> bool:
    """Whether the images of a split are there as an IDX file."""
    return any(_find(folder, f"{prefix}-{IMAGES}") for prefix in PREFIXES.values())


class IdxImages(GreyImages):
    """The images of ``train-images-idx3-ubyte`` or ``t10k-images-idx3-ubyte`` (split "test") with
    the labels of the file beside them, each as it is or gzipped, ending in ``.gz``.

    An item is ``{"images": (1, height, width)}``, float32 in [-1, 1]; with `labels` also
    ``class_labels``, 0-d int64. Scaled images are rounded to 256 levels and kept as uint8.

    Args:
        folder: of the files.
        resolution: height and width of every item, in pixels; antialiased bicubic filter.
        split: ``"train"`` or ``"test"``.
        labels: give the class of each image.
        classes: their names; by default the numbers up to the largest label.

    Raises:
        UsageError: unknown split, bad resolution, a file that is missing, damaged, or of another
            type or number of images than the one beside it, images that are not square, a label
            without a name.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        resolution: Resolution,
        split: str = "train",
        labels: bool = False,
        classes: tuple[str, ...] | None = None,
    ) -> None:
        check_resolution(resolution)
        check_split(split)
        pixels, numbers, labels_file = _read_split(Path(folder), PREFIXES[split])
        if classes is None:
            classes = tuple(map(str, range(int(numbers.max()) + 1)))
        elif numbers.max() >= len(classes):
            raise UsageError(
                f"{labels_file} has a label {int(numbers.max())}, but there are {len(classes)} "
                "classes: give as many names"
            )
        parts = [_to_uint8(scale(part, resolution)) for part in pixels.split(CHUNK)]
        super().__init__(torch.cat(parts), numbers, classes if labels else None)
        digest = hashlib.sha256(pixels.numpy())
        digest.update(numbers.numpy())
        self._identity = digest.hexdigest()

    def identity(self) -> str:
        """Text that changes with the images and labels."""
        return self._identity


def fashion_mnist(
    *, resolution: Resolution, split: str = "train", labels: bool = False
) -> IdxImages:
    """Fashion-MNIST (MIT), 60,000 images and 10,000 in the split test, 28x28, ten balanced classes,
    from where Debian's package dataset-fashion-mnist puts it.

    Raises:
        UsageError: as `IdxImages`, or it is not there.
    """
    if not has_idx_files(Path(FASHION_FOLDER)):
        raise UsageError(
            f"no fashion-mnist in {FASHION_FOLDER}: apt install dataset-fashion-mnist, or give the "
            "folder of its four files, like ./fashion-mnist, instead of the name"
        )
    return IdxImages(
        FASHION_FOLDER, resolution=resolution, split=split, labels=labels, classes=FASHION_CLASSES
    )


def read_idx(path: Path, num_axes: int) -> Tensor:
    """The uint8 values of an IDX file, gzipped if its name ends in .gz.

    Args:
        path: of the file.
        num_axes: that it must have: 3 for images, 1 for labels.

    Returns:
        A uint8 tensor of the shape that the file's header gives.

    Raises:
        UsageError: it cannot be read, is no IDX file of uint8 in so many axes, or its size is not
            what its header says.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
            content = bytearray(file.read())  # writable, as torch wants it
    except (OSError, EOFError, zlib.error) as error:
        raise UsageError(f"cannot read {path}: {error}") from error
    magic, expected = bytes(content[:4]), bytes([0, 0, UINT8, num_axes])
    if magic != expected:
        raise UsageError(
            f"{path} is no IDX file of uint8 in {num_axes} axes: it begins with "
            f"{magic.hex(' ') or 'nothing'}, not {expected.hex(' ')}"
        )
    start = 4 + 4 * num_axes
    if len(content) < start:
        raise UsageError(f"{path} ends within its header, at byte {len(content)}: get it again")
    shape = struct.unpack_from(f">{num_axes}I", content, 4)
    if len(content) - start != math.prod(shape):
        raise UsageError(
            f"{path} has {len(content) - start} values, but its header says "
            f"{' x '.join(map(str, shape))}: get it again"
        )
    if math.prod(shape) == 0:
        raise UsageError(f"{path} is empty: its header says {' x '.join(map(str, shape))}")
    return torch.frombuffer(content, dtype=torch.uint8, offset=start).reshape(shape)


def _read_split(folder: Path, prefix: str) -> tuple[Tensor, Tensor, Path]:
    """Pixels (images, size, size), labels (images,), both uint8, and the labels' file."""
    paths = []
    for name in (IMAGES, LABELS):
        path = _find(folder, f"{prefix}-{name}")
        if path is None:
            raise UsageError(f"{folder} has no {prefix}-{name}.gz: it needs images and labels")
        paths.append(path)
    pixels, labels = read_idx(paths[0], 3), read_idx(paths[1], 1)
    if len(pixels) != len(labels):
        raise UsageError(
            f"{paths[0]} has {len(pixels)} images, but {paths[1]} has {len(labels)} labels"
        )
    height, width = pixels.shape[1:]
    if height != width:
        raise UsageError(f"{paths[0]} has images of {height} x {width} pixels: they must be square")
    return pixels, labels, paths[1]


def _find(folder: Path, name: str) -> Path | None:
    """The file of that name, else the gzipped one, else None."""
    return next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)


def _to_uint8(images: Tensor) -> Tensor:
    return ((images + 1) * 127.5).round().to(torch.uint8)
