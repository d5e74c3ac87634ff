"""Pictures of images: plain grids and labelled rows."""

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor


def save_grid(images: Tensor, path: str | Path, *, columns: int | None = None) -> None:
    """Writes images side by side as one PNG, small ones enlarged by a whole number.

    Args:
        images: (N, 1 or 3, height, width) in [-1, 1], N >= 1.
        path: of the PNG.
        columns: images in a row; about the square root of N if not given.
    """
    count, _, height, width = images.shape
    columns = columns or math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    scale = max(1, 64 // max(height, width))
    gap = 2
    sheet = np.full(
        (rows * (height * scale + gap) + gap, columns * (width * scale + gap) + gap, 3), 255
    ).astype(np.uint8)
    for index, image in enumerate(to_pixels(images)):
        top = gap + index // columns * (height * scale + gap)
        left = gap + index % columns * (width * scale + gap)
        enlarged = image.repeat(scale, axis=0).repeat(scale, axis=1)
        sheet[top : top + height * scale, left : left + width * scale] = enlarged
    Image.fromarray(sheet).save(path)


def save_labelled_rows(rows: Mapping[str, Tensor], path: str | Path, *, title: str) -> None:
    """Writes one row of images for each label: the same column, the same noise.

    Args:
        rows: label to (N, 1 or 3, height, width) in [-1, 1]; a label may have several lines.
        path: of the PNG.
        title: one line above the rows.
    """
    columns = max(len(images) for images in rows.values())
    cell, label_width, title_height = 0.56, 2.55, 0.4  # inches
    width = label_width + columns * cell + 0.1
    height = title_height + len(rows) * (cell + 0.06) + 0.06
    figure = new_figure(width, height)
    figure.text(0.1 / width, 1 - 0.3 / height, title, fontsize=11, va="baseline")
    for row, (label, images) in enumerate(rows.items()):
        bottom = height - title_height - (row + 1) * (cell + 0.06)
        figure.text(0.1 / width, (bottom + cell / 2) / height, label, fontsize=10, va="center")
        axes = figure.add_axes(
            (label_width / width, bottom / height, len(images) * cell / width, cell / height)
        )
        axes.imshow(np.concatenate(list(_framed(to_pixels(images))), axis=1), aspect="auto")
        axes.set_axis_off()
    figure.savefig(path, dpi=150)


def new_figure(width: float, height: float) -> Figure:
    """A figure of this size in inches that belongs to no global state."""
    figure = Figure(figsize=(width, height), facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def to_pixels(images: Tensor) -> np.ndarray:
    """(N, 1 or 3, height, width) in [-1, 1] to (N, height, width, 3) uint8."""
    pixels = ((images.detach().float().cpu() + 1) * 127.5).round().clamp(0, 255).byte()
    return pixels.permute(0, 2, 3, 1).expand(-1, -1, -1, 3).numpy()


def _framed(images: np.ndarray) -> np.ndarray:
    """Enlarges images and adds a white margin, so that neighbours do not touch."""
    scale = max(1, 96 // images.shape[2])
    enlarged = images.repeat(scale, axis=1).repeat(scale, axis=2)
    return np.pad(enlarged, ((0, 0), (0, 0), (0, 6), (0, 0)), constant_values=255)
