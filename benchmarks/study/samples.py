"""One picture of a study's samples: a row a method, a column a student, step or learning rate."""

from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.study import reading
from benchmarks.study.reading import Row
from benchmarks.study.rows import StudyFiles
from liftplace.plots.axes import DPI, WIDTH, short
from liftplace.plots.images import new_figure

COUNT = 8  # samples side by side in a cell's picture
Sheet = dict[str, dict[str, Path]]


def sheet(rows: list[Row], axes: tuple[str, ...], files: StudyFiles) -> Sheet:
    """{name: {column: picture}} of the cells that have one; where several have, the first.

    The teacher's come first."""
    found: Sheet = {name: {} for name in ("teacher", *reading.lines(rows))}
    for column, of_column in reading.columns(rows, axes).items():
        teachers = {"teacher": map(files.teacher_picture, of_column)}
        of_lines = {name: map(files.picture, group)
                    for name, group in reading.lines(of_column).items()}  # fmt: skip
        for name, pictures in (teachers | of_lines).items():
            if path := next(filter(Path.exists, pictures), None):
                found[name][column] = path
    students = any(cells for name, cells in found.items() if name != "teacher")
    return {name: cells for name, cells in found.items() if cells and students}


def save_sheet(found: Sheet, path: Path, *, title: str) -> None:
    """Writes the sheet; a cell's samples stand in one row, or in two where columns are many."""
    columns = list(dict.fromkeys(column for cells in found.values() for column in cells))
    lines = 1 if len(columns) <= 2 else 2
    heads = [column.replace(", ", ",\n") for column in columns]
    tall = any("\n" in each for each in heads)
    label, gap, head = 1.9, 0.1, 0.75 if tall else 0.55  # inches
    wide = min((WIDTH - label) / len(columns) - gap, 3.6)
    width = label + len(columns) * (wide + gap)
    high = wide * lines**2 / COUNT
    height = head + len(found) * (high + gap)
    figure = new_figure(width, height)
    remark = "one place in all cells: one noise"
    figure.text(0.06 / width, 1 - 0.2 / height, f"{title}; {remark}" if title else remark,
                fontsize=9, va="center")  # fmt: skip
    for place, column in enumerate(columns):
        left = label + place * (wide + gap)
        figure.text((left + wide / 2) / width, 1 - (head - 0.05) / height, heads[place],
                    fontsize=10, ha="center", va="bottom")  # fmt: skip
        for row, (name, cells) in enumerate(found.items()):
            bottom = height - head - row * (high + gap) - high
            if place == 0:
                figure.text(0.06 / width, (bottom + high / 2) / height, _wrapped(name),
                            fontsize=10, va="center")  # fmt: skip
            if column in cells:
                box = (left / width, bottom / height, wide / width, high / height)
                axes = figure.add_axes(box)
                axes.imshow(_stacked(cells[column], lines), cmap="gray", vmin=0, vmax=255,
                            aspect="auto", interpolation="nearest")  # fmt: skip
                axes.set_axis_off()
    figure.savefig(path, dpi=DPI)


def _stacked(path: Path, lines: int) -> np.ndarray:
    """The samples of a picture in so many lines: grey, or (height, width, 3)."""
    with Image.open(path) as picture:
        pixels = np.asarray(picture.convert("L" if picture.mode == "L" else "RGB"))
    return np.concatenate(np.split(pixels, lines, axis=1), axis=0)


def _wrapped(name: str) -> str:
    """The name on two lines where one is too short."""
    name = short(name, 44)
    if len(name) <= 22:
        return name
    cut = name.rfind(" ", 0, 23)
    return f"{name[:cut]}\n{name[cut + 1 :]}" if cut > 0 else name
