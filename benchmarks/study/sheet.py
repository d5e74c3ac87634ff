"""The samples that a study keeps: one picture, a strip of eight samples a row.

The text chunk "strips" of the PNG file names the rows, from the top: HASH-STEP of a student, and of
a teacher what `StudyFiles.teacher_strip` says.
"""

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

COUNT = 8  # samples in a strip
Strip = np.ndarray  # uint8: (height, COUNT * width), or (height, COUNT * width, 3) in colour


def strip_of(samples: Tensor) -> Strip:
    """Samples (COUNT, channels, height, width) in -1 to 1, side by side, pixel by pixel."""
    row = torch.cat(list(samples), dim=-1).add(1).mul(127.5).round().clamp(0, 255).byte()
    return row[0].numpy() if len(row) == 1 else row.permute(1, 2, 0).numpy()


def read(path: Path) -> dict[str, Strip]:
    """The strips by name; none where there is no file."""
    if not path.exists():
        return {}
    with Image.open(path) as picture:
        names = picture.text["strips"].split()
        return dict(zip(names, np.split(np.asarray(picture), len(names)), strict=True))


def add(path: Path, strips: Mapping[str, Strip]) -> None:
    """Put strips in place of those of the same names; the file is written whole or not at all."""
    if not strips:
        return
    rows = dict(sorted({**read(path), **strips}.items()))
    info = PngInfo()
    info.add_text("strips", " ".join(rows))
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    picture = Image.fromarray(np.concatenate(list(rows.values())))
    picture.save(partial, "PNG", pnginfo=info, optimize=True)
    os.replace(partial, path)
