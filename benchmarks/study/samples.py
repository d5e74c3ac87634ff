"""One picture of a study's samples: a row a method, a column a student, step or learning rate."""

from pathlib import Path

import numpy as np

from benchmarks.study import reading, sheet
from benchmarks.study.reading import Row
from benchmarks.study.rows import StudyFiles, student_strip, teacher_strip
from benchmarks.study.sheet import COUNT, Strip
from liftplace.plots.axes import DPI, WIDTH, short
from liftplace.plots.images import new_figure

Shown = dict[str, dict[str, Strip]]


def shown(rows: list[Row], axes: tuple[str, ...], files: StudyFiles) -> Shown:
    """{name: {column: strip}} of the cells that have one; where several have, the first.

    The teacher's come first."""
    strips = sheet.read(files.samples_path)
    cells: Shown = {name: {} for name in ("teacher", *reading.lines(rows))}
    for column, of_column in reading.columns(rows, axes).items():
        names = {"teacher": map(teacher_strip, of_column)}
        for line, group in reading.lines(of_column).items():
            names[line] = map(student_strip, group)
        for line, of_line in names.items():
            if name := next((name for name in of_line if name in strips), None):
                cells[line][column] = strips[name]
    students = any(of_line for name, of_line in cells.items() if name != "teacher")
    return {name: of_line for name, of_line in cells.items() if of_line and students}


def save(cells: Shown, path: Path, *, title: str) -> None:
    """Writes the sheet; a cell's samples stand in one row, or in two where columns are many."""
    columns = list(dict.fromkeys(column for of_line in cells.values() for column in of_line))
    lines = 1 if len(columns) <= 2 else 2
    heads = [column.replace(", ", ",\n") for column in columns]
    tall = any("\n" in each for each in heads)
    label, gap, head = 1.9, 0.1, 0.75 if tall else 0.55  # inches
    wide = min((WIDTH - label) / len(columns) - gap, 3.6)
    width = label + len(columns) * (wide + gap)
    high = wide * lines**2 / COUNT
    height = head + len(cells) * (high + gap)
    figure = new_figure(width, height)
    remark = "one place in all cells: one noise"
    head_text = f"{title}; {remark}" if title else remark
    figure.text(0.06 / width, 1 - 0.2 / height, head_text, fontsize=9, va="center")
    for place, column in enumerate(columns):
        left = label + place * (wide + gap)
        middle, top = (left + wide / 2) / width, 1 - (head - 0.05) / height
        figure.text(middle, top, heads[place], fontsize=10, ha="center", va="bottom")
        for row, (name, of_line) in enumerate(cells.items()):
            bottom = height - head - row * (high + gap) - high
            if place == 0:
                middle = (bottom + high / 2) / height
                figure.text(0.06 / width, middle, _wrapped(name), fontsize=10, va="center")
            if column in of_line:
                box = (left / width, bottom / height, wide / width, high / height)
                axes = figure.add_axes(box)
                grey = {"cmap": "gray", "vmin": 0, "vmax": 255}
                pixels = _stacked(of_line[column], lines)
                axes.imshow(pixels, aspect="auto", interpolation="nearest", **grey)
                axes.set_axis_off()
    figure.savefig(path, dpi=DPI)


def _stacked(strip: Strip, lines: int) -> Strip:
    """The samples of a strip in so many lines."""
    return np.concatenate(np.split(strip, lines, axis=1), axis=0)


def _wrapped(name: str) -> str:
    """The name on two lines where one is too short."""
    name = short(name, 44)
    if len(name) <= 22:
        return name
    cut = name.rfind(" ", 0, 23)
    return f"{name[:cut]}\n{name[cut + 1 :]}" if cut > 0 else name
