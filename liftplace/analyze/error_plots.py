"""Plots of the distillation error over the timesteps: its parts, its explained share, the fits."""

from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from liftplace.analyze.analysis import ModelErrors, StudentAnalysis
from liftplace.plots.axes import (
    DASHES,
    OKABE_ITO,
    WIDTH,
    dress,
    finish,
    panels,
    set_log,
    short,
    style_of,
    suits_log,
)
from liftplace.plots.images import new_figure

PARTS = {  # of the error, with fixed looks in all pictures
    "total": {"color": OKABE_ITO["black"], "linestyle": DASHES[0], "marker": "o"},
    "coarse": {"color": OKABE_ITO["orange"], "linestyle": DASHES[1], "marker": "s"},
    "fine": {"color": OKABE_ITO["blue"], "linestyle": DASHES[2], "marker": "^"},
}
BANDS = 4  # channels whose spread over the images is plotted; more would hide each other
TIMESTEP = "timestep (right: more noise)"


def save_errors(students: Sequence[StudentAnalysis], noisy: float, path: Path) -> None:
    """A row of two panels a student: the error and its parts, and the same over mean t²; timesteps
    above `noisy` are the noisier half."""
    figure, grid = _rows(students)
    for student, (left, right) in zip(students, grid, strict=True):
        errors, name = student.errors, short(student.label)
        for part, style in PARTS.items():
            values = getattr(errors, part).numpy()
            look = style | {"linewidth": 1.6, "ms": 3.5}
            left.plot(errors.timesteps, values, **look)
            right.plot(errors.timesteps, 100 * _share(values, errors.power.numpy()), **look)
        for axes in (left, right):
            _mark(axes, noisy)
        dress(left, name, TIMESTEP, "mean squared error")
        dress(right, f"{name}, relative", TIMESTEP, "% of the teacher's mean t²")
    for column in grid.T:
        _same_scale(column)
    finish(figure, {name: dict(style, ms=3.5) for name, style in PARTS.items()}, path)


def save_propagated(students: Sequence[StudentAnalysis], noisy: float, path: Path) -> None:
    """A panel a student: what the error at each step of sampling moves the image by, by parts."""
    figure, grid = panels(len(students))
    for student, axes in zip(students, grid, strict=True):
        timesteps = student.carried.timesteps
        coarse, fine = student.carried.coarse, student.carried.fine
        parts = {"total": coarse + fine, "coarse": coarse, "fine": fine}
        for part, squares in parts.items():
            look = PARTS[part] | {"linewidth": 1.6, "ms": 3.5}
            axes.plot(timesteps, squares.sqrt().numpy(), **look)
        _mark(axes, noisy)
        dress(axes, short(student.label), TIMESTEP, "rms change of the image")
    _same_scale(grid)
    finish(figure, {name: dict(style, ms=3.5) for name, style in PARTS.items()}, path)


def save_explained(students: Sequence[StudentAnalysis], path: Path) -> None:
    """A panel a student: the share of the error that LIFT's and PLACE's fits explain."""

    def share(errors: ModelErrors) -> list[np.ndarray]:
        fine = [errors.fine, *errors.place_fine]
        return [100 - 100 * _share(each.numpy(), errors.total.numpy()) for each in fine]

    _save_by_fit(students, share, "% of the error explained", (-2, 102), path)


def save_weights(students: Sequence[StudentAnalysis], path: Path) -> None:
    """A panel a student: the adaptive weight w that LIFT and PLACE would give the fine term."""

    def weights(errors: ModelErrors) -> list[np.ndarray]:
        return [each.numpy() for each in (errors.lift_weight, *errors.weight)]

    _save_by_fit(students, weights, "w, from 0 to 1", (-0.02, 1.02), path)


def save_slopes(students: Sequence[StudentAnalysis], path: Path) -> None:
    """A row of two panels a student: slope b and intercept a of each channel, beside the ideal."""
    figure, grid = _rows(students)
    channels = students[0].errors.slope.shape[1]
    styles = _channel_styles(channels)
    for student, row in zip(students, grid, strict=True):
        errors = student.errors
        for axes, fitted, ideal in zip(row, (errors.slope, errors.intercept), (1, 0), strict=True):
            axes.axhline(ideal, color="#666666", linewidth=1.2, linestyle=(0, (2, 2)), zorder=1)
            for channel, style in enumerate(styles.values()):
                low, middle, high = fitted[:, channel].numpy().T
                axes.plot(errors.timesteps, middle, linewidth=1.6, **style)
                if channels <= BANDS:
                    axes.fill_between(
                        errors.timesteps, low, high, color=style["color"], alpha=0.18, linewidth=0
                    )
        dress(row[0], f"{short(student.label)}: slope b", TIMESTEP, "b, without unit")
        dress(row[1], f"{short(student.label)}: intercept a", TIMESTEP, "a, in units of the output")
    for column, name, ideal in zip(grid.T, ("slope", "intercept"), (1, 0), strict=True):
        limits = _most([getattr(each.errors, name).numpy() for each in students], ideal)
        for axes in column:
            axes.set_ylim(limits)
    ideal = {"color": "#666666", "linestyle": (0, (2, 2))}
    finish(figure, styles | {"b = 1, a = 0": ideal}, path)


def _channel_styles(channels: int) -> dict[str, dict]:
    if channels == 1:
        return {"median over the images": style_of(0)}
    if channels <= BANDS:
        return {f"channel {number}": style_of(number) for number in range(channels)}
    colours = matplotlib.colormaps["viridis"](np.linspace(0, 0.92, channels))
    return {
        f"channel {number}": {"color": colour, "linestyle": DASHES[number % len(DASHES)]}
        for number, colour in enumerate(colours)
    }


def _most(fitted: list[np.ndarray], ideal: float) -> tuple[float, float]:
    """Limits that hold every median and the ideal, and all of the bands but their outliers."""
    medians = np.concatenate([values[..., 1].ravel() for values in fitted])
    ends = np.concatenate([values[..., [0, 2]].ravel() for values in fitted])
    if fitted[0].shape[1] > BANDS:
        ends = medians
    held = np.concatenate([medians, np.quantile(ends, [0.02, 0.98]), [ideal]])
    margin = 0.05 * (held.max() - held.min()) or 0.1
    return held.min() - margin, held.max() + margin


def _save_by_fit(
    students: Sequence[StudentAnalysis],
    values_of: Callable[[ModelErrors], list[np.ndarray]],
    unit: str,
    limits: tuple[float, float],
    path: Path,
) -> None:
    """A panel a student with a line for LIFT and each group size of PLACE, all on one scale."""
    sizes = students[0].errors.group_sizes
    colours = matplotlib.colormaps["viridis"](np.linspace(0.85, 0.05, len(sizes)))
    # Broad and pale, so that it is seen under PLACE with groups of a whole row, which is LIFT too.
    lift = {"color": OKABE_ITO["vermillion"], "alpha": 0.45, "linewidth": 5, "marker": "."}
    styles = {"LIFT": lift}
    for number, (size, colour) in enumerate(zip(sizes, colours, strict=True)):
        dashes, marker = DASHES[number % len(DASHES)], "s^vDP*"[number % 6]
        style = {"color": colour, "linestyle": dashes, "marker": marker}
        styles[f"PLACE, {size} a group"] = style
    figure, each_axes = panels(len(students))
    for student, axes in zip(students, each_axes, strict=True):
        lines = values_of(student.errors)
        for values, style in zip(lines, styles.values(), strict=True):
            look = {"linewidth": 1.6, "ms": 3.5} | style
            axes.plot(student.errors.timesteps, values, **look)
        dress(axes, short(student.label), TIMESTEP, unit)
        axes.set_ylim(limits)
    finish(figure, {name: dict(style, ms=3.5) for name, style in styles.items()}, path)


def _mark(axes: Axes, noisy: float) -> None:
    """The noisier half of the timesteps in grey."""
    low, high = axes.get_xlim()
    axes.axvspan(noisy, max(high, noisy), color="#000000", alpha=0.06, linewidth=0, zorder=0)
    axes.set_xlim(low, high)


def _rows(students: Sequence[StudentAnalysis]) -> tuple[Figure, np.ndarray]:
    """A row of two panels for each student."""
    figure = new_figure(WIDTH, 0.4 + 2.7 * len(students))
    grid = figure.subplots(len(students), 2, squeeze=False)
    return figure, grid


def _same_scale(panels: Sequence[Axes]) -> None:
    """One y scale for all of them, logarithmic where that helps."""
    values = np.concatenate([line.get_ydata() for axes in panels for line in axes.lines])
    values = values[np.isfinite(values)]
    logarithmic = suits_log(values)
    positive = values[values > 0]
    for axes in panels:
        if logarithmic:
            # A part that is zero but for rounding would squeeze all others: six decades suffice.
            low = max(positive.min(), 1e-6 * positive.max())
            axes.set_ylim(low / 1.3, positive.max() * 1.3)
            set_log(axes)
        elif len(values):
            axes.set_ylim(min(0, values.min()), 1.05 * values.max() or 1)


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole; NaN, which is not plotted, where the whole is zero."""
    return np.divide(part, whole, out=np.full_like(part, np.nan), where=whole > 0)
