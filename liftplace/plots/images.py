"""Pictures of images: plain grids and labelled rows."""

import math
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

LABEL_HEIGHT = 16  # pixels
FONT_SIZE = 11


def save_grid(
    images: Tensor,
    path: str | Path,
    *,
    columns: int | None = None,
    labels: Sequence[str] | None = None,
) -> None:
    """Writes images side by side as one PNG, small ones enlarged by a whole number.

    Args:
        images: (N, 1 or 3, height, width) in [-1, 1], N >= 1.
        path: of the PNG.
        columns: images in a row; about the square root of N if not given.
        labels: a line of text below each image, cut off at its width.
    """
    count, _, height, width = images.shape
    columns = columns or math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    scale = max(1, 64 // max(height, width))
    gap = 2
    below = gap + (0 if labels is None else LABEL_HEIGHT)
    size = columns * (width * scale + gap) + gap, rows * (height * scale + below) + gap
    sheet = Image.new("RGB", size, "white")
    for index, image in enumerate(to_pixels(images)):
        top = gap + index // columns * (height * scale + below)
        left = gap + index % columns * (width * scale + gap)
        enlarged = image.repeat(scale, axis=0).repeat(scale, axis=1)
        sheet.paste(Image.fromarray(enlarged), (left, top))
        if labels is not None:
            _write(sheet, labels[index], (left, top + height * scale), width * scale)
    sheet.save(path)


def _write(sheet: Image.Image, text: str, place: tuple[int, int], width: int) -> None:
    """One line of at most this width; what is cut off ends in an ellipsis."""
    draw, font = ImageDraw.Draw(sheet), _font()
    text = " ".join(text.split())
    while text and draw.textlength(text, font) > width:
        text = text.removesuffix("…")[:-1].rstrip() + "…" if len(text) > 1 else ""
    draw.text(place, text, "black", font)


@cache
def _font() -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(findfont("DejaVu Sans"), FONT_SIZE)  # comes with matplotlib


def save_labelled_rows(
    rows: Mapping[str, Tensor],
    path: str | Path,
    *,
    title: str,
    column_labels: Sequence[str] | None = None,
) -> None:
    """Writes one row of images for each label: the same column, the same noise.

    Args:
        rows: label to (N, 1 or 3, height, width) in [-1, 1]; a label may have several lines.
        path: of the PNG.
        title: one line above the rows.
        column_labels: a line of text above each column, for as many as there are.
    """
    columns = max(len(images) for images in rows.values())
    cell, label_width, title_height = 0.56, 2.55, 0.4  # inches
    if column_labels is not None:
        title_height += 0.2
    width = label_width + columns * cell + 0.1
    height = title_height + len(rows) * (cell + 0.06) + 0.06
    figure = new_figure(width, height)
    figure.text(0.1 / width, 1 - 0.3 / height, title, fontsize=11, va="baseline")
    for column, text in enumerate(column_labels or ()):
        middle, line = label_width + (column + 0.5) * cell, height - title_height + 0.04
        place = {"ha": "center", "va": "bottom", "parse_math": False}
        figure.text(middle / width, line / height, text, fontsize=6, **place)
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
