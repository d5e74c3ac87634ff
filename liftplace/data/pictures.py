"""Pictures in files, whatever Pillow opens, to RGB."""

import struct
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import ExifTags, Image, UnidentifiedImageError
from torch import Tensor
from tqdm.auto import tqdm

from liftplace.common.errors import UsageError
from liftplace.data.size import Resolution, height_width

SUFFIXES = frozenset({
    ".apng", ".avif", ".bmp", ".gif", ".j2k", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".pbm",
    ".pgm", ".png", ".pnm", ".ppm", ".tga", ".tif", ".tiff", ".webp",
})  # fmt: skip
BACKGROUND = (255, 255, 255)  # behind what is transparent: white, as browsers show it
SIXTEEN_BITS = ("I;16", "I;16L", "I;16B", "I;16N")
# What Pillow's decoders raise on damaged files; a truncated AVIF is a RuntimeError.
UNREADABLE = (
    OSError, SyntaxError, ValueError, EOFError, RuntimeError, struct.error,
    Image.DecompressionBombError,
)  # fmt: skip
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # to turn a picture upright, by its EXIF orientation
READERS = 8  # threads that look at headers
AT_ONCE = 256  # headers: a task a file would take as long as the file
BAR_FROM = 10_000  # files


class UnreadableImageError(UsageError):
    """A picture that is damaged, or of a kind that has no one meaning."""


def read_picture(path: Path, resolution: Resolution, resize_mode: str) -> Tensor:
    """(3, height, width), float32 in [-1, 1].

    Raises:
        UnreadableImageError: the file is no picture, damaged, or of a kind without one meaning.
    """
    try:
        with Image.open(path) as file:
            return to_tensor(file, resolution, resize_mode)
    except UNREADABLE as error:
        raise UnreadableImageError(f"cannot read image {path}: {reason(error)}") from error


def broken_headers(paths: Sequence[Path]) -> str | None:
    """Open every file as far as its header, with a progress bar where there are many.

    Returns:
        The names of the first few files that are no pictures, and why; None if all are.
    """
    parts = [paths[first : first + AT_ONCE] for first in range(0, len(paths), AT_ONCE)]
    bar = tqdm(
        total=len(paths), desc="Checking images", unit="image", disable=len(paths) < BAR_FROM
    )
    broken = []
    # Warnings are the process's, not a thread's: they are quiet around all readers.
    with warnings.catch_warnings(), bar, ThreadPoolExecutor(READERS) as readers:
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        for part, problems in zip(parts, readers.map(_problems, parts), strict=True):
            broken += [pair for pair in zip(part, problems, strict=True) if pair[1]]
            bar.update(len(part))
    first = "; ".join(f"{path}: {problem}" for path, problem in broken[:3])
    more = "" if len(broken) <= 3 else f"; and {len(broken) - 3} more"
    return f"cannot read image {first}{more}" if broken else None


def _problems(paths: Sequence[Path]) -> list[str | None]:
    return [_problem(path) for path in paths]


def _problem(path: Path) -> str | None:
    try:
        with Image.open(path) as file:
            if file.mode == "I" and file.format != "PNG":
                return INTEGERS
    except UNREADABLE as error:
        return reason(error)
    return None


INTEGERS = "32-bit integers, whose white is unknown: save it with 8 or 16 bits"


def reason(error: Exception) -> str:
    return "not an image" if isinstance(error, UnidentifiedImageError) else str(error)


def to_tensor(image: Image.Image, resolution: Resolution, resize_mode: str) -> Tensor:
    """A picture to (3, height, width) in [-1, 1], the right way up.

    Args:
        resize_mode: "crop" keeps the aspect: the short side is resized, the middle of the long one
            is kept. "squash" scales the whole picture to the height and width.

    Raises:
        ValueError: a kind of picture that has no one meaning in 8 bits.
    """
    height, width = height_width(resolution)
    turn = _turn(image)
    image = to_rgb(image)
    image = image if turn is None else image.transpose(turn)
    if resize_mode == "crop":  # cropped first: the same pixels, and a long side costs nothing
        across = min(image.width, max(1, round(image.height * width / height)))
        down = min(image.height, max(1, round(image.width * height / width)))
        left, top = (image.width - across) // 2, (image.height - down) // 2
        image = image.crop((left, top, left + across, top + down))
    image = image.resize((width, height), Image.Resampling.LANCZOS)
    pixels = torch.from_numpy(np.array(image, dtype=np.float32))  # (height, width, 3)
    return pixels.permute(2, 0, 1) / 127.5 - 1


def _turn(image: Image.Image) -> Image.Transpose | None:
    """How to turn it upright; None if it is, or where its EXIF is damaged, as viewers have it."""
    image.load()  # before EXIF, which some formats have behind the pixels
    try:
        return TURNS.get(image.getexif().get(ExifTags.Base.Orientation))
    except UNREADABLE:
        return None


def to_rgb(image: Image.Image) -> Image.Image:
    """Any mode to RGB: 16 bits and floats scaled, transparency over `BACKGROUND`."""
    if image.mode in SIXTEEN_BITS or (image.mode == "I" and image.format == "PNG"):
        return _grey(np.asarray(image, dtype=np.float64) / 65535)
    if image.mode == "I":
        raise ValueError(INTEGERS)
    if image.mode == "F":
        values = np.asarray(image, dtype=np.float64)
        if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= 1):
            raise ValueError(
                f"floats from {values.min():g} to {values.max():g}: need them in [0, 1]"
            )
        return _grey(values)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        below = Image.new("RGBA", image.size, (*BACKGROUND, 255))
        image = Image.alpha_composite(below, image)
    return image.convert("RGB")


def _grey(values: np.ndarray) -> Image.Image:
    return Image.fromarray(np.rint(values * 255).astype(np.uint8)).convert("RGB")
