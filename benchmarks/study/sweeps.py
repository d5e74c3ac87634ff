"""Figures of studies that sweep the learning rate or the number of steps."""

import math
import statistics
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator

from benchmarks.study import charts, reading
from benchmarks.study.reading import Row
from liftplace.analyze.error_plots import TIMESTEP
from liftplace.plots.axes import WIDTH, dress, finish, panels
from liftplace.plots.images import new_figure

DRIFT = {  # column: its axis, and the height of a perfect student
    "slope": ("slope b, median over images", 1.0),
    "intercept": ("intercept a, median over images", 0.0),
    "error": ("error to the teacher / its power", None),
}
Drift = dict[float, dict[str, dict[float, dict[str, float]]]]


def save_stability(path: Path, *, rows: list[Row], title: str) -> None:
    """FD, the share of seeds that diverged and loss spikes over the learning rate."""
    figure = new_figure(WIDTH, 8.4)
    grid = figure.subplots(3, 1, sharex=True, height_ratios=(2, 1, 1))
    lines = reading.lines(rows)
    styles = charts.styles_of(lines)
    rates = sorted({row["learning_rate"] for row in rows})
    _rates(grid[0], rates)
    for number, (name, of_line) in enumerate(lines.items()):
        shift = math.exp(0.05 * (number - (len(lines) - 1) / 2))
        rates_of_line = sorted(reading.by(of_line, "learning_rate").items())
        at = {rate * shift: group for rate, group in rates_of_line}
        _draw_seeds(grid[0], at, styles[name])
        shares = [reading.diverged(group) / len(group) for group in at.values()]
        grid[1].plot(at.keys(), shares, linewidth=1.3, ms=4, **styles[name])
        spikes = {place: reading.median(group, "spikes") for place, group in at.items()}
        spikes = {place: count for place, count in spikes.items() if count is not None}
        grid[2].plot(spikes.keys(), spikes.values(), linewidth=1.3, ms=4, **styles[name])
    charts.fit_y(grid[0], logarithmic=True)
    grid[1].set_ylim(-0.05, 1.05)
    grid[2].set_yscale("symlog", linthresh=1)
    grid[2].set_ylim(-0.3, max(1.0, grid[2].get_ylim()[1]))
    grid[2].yaxis.set_major_formatter("{x:g}")
    dress(grid[0], f"{title}: every seed, and the median", "", charts.FD)
    dress(grid[1], "", "", "share of seeds diverged")
    dress(grid[2], "", "learning rate", "loss spikes a run, median")
    finish(figure, styles, path)


def _draw_seeds(axes: Axes, at: dict[float, list[Row]], style: dict) -> None:
    """A dot a seed that did not diverge, and a line through their medians."""
    found = {place: list(reading.measured(group).values()) for place, group in at.items()}
    found = {place: values for place, values in found.items() if values}
    dots = style | {"linestyle": "none", "alpha": 0.6}
    for place, values in found.items():
        axes.plot([place] * len(values), values, ms=3, gid=charts.VALUE, **dots)
    medians = [statistics.median(values) for values in found.values()]
    axes.plot(found.keys(), medians, linewidth=1.5, gid=charts.VALUE, **(style | {"marker": None}))


def _rates(axes: Axes, rates: list[float]) -> None:
    axes.set_xscale("log")
    axes.set_xlim(rates[0] / 1.6, rates[-1] * 1.6)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks(rates, [f"{rate:g}" for rate in rates])


def drift(rows: list[Row], timesteps: list[Row]) -> Drift:
    """{learning rate: {name: {timestep: {column: median over seeds}}}} at two learning rates.

    The lowest, and the highest at which no seed of output KD diverged (of all methods, where there
    is no output KD); one, where these are the same. Seeds that diverged are left out.
    """
    measured = reading.by_all(timesteps, ("hash", "step"))
    base = [row for row in rows if reading.name_of(row) == "output KD"] or rows
    by_rate = reading.by(base, "learning_rate")
    holds = [rate for rate, group in by_rate.items() if not reading.diverged(group)]
    rows = [row for row in rows if (row["hash"], row["step"]) in measured]
    found: Drift = {}
    for rate in sorted({min(holds), max(holds)} if holds else ()):
        at = [row for row in rows if row["learning_rate"] == rate and row["status"] == "ok"]
        found[rate] = {
            name: _medians([each for row in group for each in measured[row["hash"], row["step"]]])
            for name, group in reading.lines(at).items()
        }
    return {rate: lines for rate, lines in found.items() if lines}


def _medians(measured: list[Row]) -> dict[float, dict[str, float]]:
    def value(row: Row, column: str) -> float:
        return row["total"] / row["power"] if column == "error" else row[column]

    return {
        timestep: {
            column: statistics.median(value(row, column) for row in group) for column in DRIFT
        }
        for timestep, group in sorted(reading.by(measured, "timestep").items())
    }


def save_drift(found: Drift, path: Path) -> None:
    """Slope, intercept and error over the timestep: a column a learning rate, a line a method."""
    figure = new_figure(WIDTH, 8.4)
    grid = figure.subplots(len(DRIFT), len(found), sharex=True, sharey="row", squeeze=False)
    styles: dict[str, dict] = {}
    for place, (rate, lines) in enumerate(found.items()):
        styles |= charts.styles_of(lines)
        for row, (column, (label, ideal)) in enumerate(DRIFT.items()):
            axes = grid[row, place]
            for name, curve in lines.items():
                values = [point[column] for point in curve.values()]
                axes.plot(
                    curve.keys(), values, gid=charts.VALUE, linewidth=1.3, ms=4, **styles[name]
                )
            if ideal is not None:
                axes.axhline(ideal, color="black", linewidth=0.8, gid=charts.REFERENCE, zorder=0)
            head = f"learning rate {rate:g}, {_why(place, found)}" if row == 0 else ""
            dress(axes, head, TIMESTEP, label)
            axes.label_outer()
    for panels_of_row in grid:
        charts.fit_y(*panels_of_row)
    finish(figure, styles, path)


def _why(place: int, found: Drift) -> str:
    return "the lowest" if place == 0 and len(found) > 1 else "the highest that output KD holds"


def save_with_ratio(path: Path, *, rows: list[Row], title: str, x: str, label: str) -> None:
    """FD over the column x, and beside it its ratio to output KD, where that was measured."""
    ratio = reading.ratio_to(rows, (x,))
    others = [row for row in rows if reading.name_of(row) != reading.BASELINES[0]]
    drawn = {charts.FD: (rows, reading.estimate), charts.RATIO: (others, ratio)}
    if not any(ratio([row]) for row in others):
        del drawn[charts.RATIO]
    ticks = {row[x]: row["student"] if x == "share" else _thousands(row[x]) for row in rows}
    figure, grid = panels(len(drawn))
    figure.set_figheight(4.6)
    styles: dict[str, dict] = {}
    for axes, (height, (of_panel, estimate)) in zip(grid, drawn.items(), strict=True):
        charts.log_x(axes, list(ticks), list(ticks.values()))
        styles |= charts.draw_points(axes, of_panel, x, estimate, dodge=0.035)
        dress(axes, "", label, height)
    references = charts.draw_references(grid[0], rows, "fd")
    charts.fit_y(grid[0], logarithmic=True)
    for axes in grid[1:]:
        charts.ratio_axis(axes)
    grid[0].set_title(title.replace("; ", "\n"), fontsize=10)  # wider than the panel in a line
    finish(figure, styles | references, path)


def _thousands(step: int) -> str:
    return f"{step / 1000:g} k" if step >= 1000 else str(step)
