"""What the figures of studies have in common: looks of lines, points with intervals, references."""

import itertools
import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullLocator

from benchmarks.study import reading
from benchmarks.study.reading import BASELINES, ORDER, Row
from benchmarks.study.statistics import Estimate
from liftplace.plots.axes import NARROW, set_log, style_of, suits_log

FD, KID = "FD-Lite0, lower is better", "KID, lower is better"
RATIO = "FD-Lite0 / that of output KD, same seed"
TEACHER = {"color": "#444444", "linestyle": (0, (6, 2)), "linewidth": 1.2}
FLOOR = {"color": "#888888", "linestyle": (0, (1.5, 1.5)), "linewidth": 1.2}
REFERENCES = {"teacher": TEACHER, "real / real": FLOOR}
MARKERS = "osD^vPX"
VALUE, INTERVAL, REFERENCE = "value", "interval", "reference"  # what a line of a panel is
HOLLOW = {"markerfacecolor": "white", "linestyle": "none"}
SOME_LOST = HOLLOW | {"color": "black", "marker": "o"}
ALL_LOST = {"color": "black", "marker": "x", "linestyle": "none"}
Estimator = Callable[[list[Row]], Estimate | None]


def styles_of(names: Iterable[str]) -> dict[str, dict]:
    """The look of each line: a method's is the same in all figures, a variant's that of a method
    which is not drawn, of the baselines none, because a panel may leave them out."""
    names = list(names)
    taken = {*names, *BASELINES}
    free = (number for number, name in enumerate(ORDER) if name not in taken)
    others = itertools.chain(free, itertools.count(len(ORDER)))
    styles = {}
    for name in names:
        number = ORDER.index(name) if name in ORDER else next(others)
        styles[name] = style_of(number) | {"marker": MARKERS[number % len(MARKERS)]}
    return styles


def draw_points(
    axes: Axes, rows: Sequence[Row], x: str, estimate: Estimator, *, dodge: float
) -> dict[str, dict]:
    """A line a name over column x, with bars for the intervals, side by side; returns their looks.

    A hollow marker leaves out seeds that diverged; where all did, a cross stands at the top.

    Args:
        estimate: from the rows of a name at an x to its height, None where it has none.
        dodge: between two names; a share of x on a logarithmic axis, else in units of x.
    """
    lines = reading.lines(rows)
    styles = styles_of(lines)
    shown = {}
    for number, (name, of_line) in enumerate(lines.items()):
        offset = dodge * (number - (len(lines) - 1) / 2)
        groups = sorted(reading.by(of_line, x).items())
        if axes.get_xscale() == "log":
            placed = [(place * math.exp(offset), group) for place, group in groups]
        else:
            placed = [(place + offset, group) for place, group in groups]
        found = {place: (each, group) for place, group in placed if (each := estimate(group))}
        heights = [each.value for each, _ in found.values()]
        color = styles[name]["color"]
        axes.plot(found.keys(), heights, linewidth=1.3, ms=5, gid=VALUE, **styles[name])
        for place, (each, group) in found.items():
            if reading.diverged(group):
                axes.plot(place, each.value, ms=5, **styles[name] | HOLLOW)
                shown["some seeds diverged, mean of the rest"] = SOME_LOST
            if each.low is not None:
                bar = {"linewidth": 1.3, "color": color, "gid": INTERVAL, "zorder": 1.9}
                axes.plot([place, place], [each.low, each.high], **bar)
        for place, group in placed:
            if reading.diverged(group) == len(group):
                top = axes.get_xaxis_transform()
                axes.plot(place, 0.97, transform=top, ms=6, mew=1.6, **ALL_LOST | {"color": color})
                shown["all seeds diverged"] = ALL_LOST
    return styles | shown


def fit_y(*panels: Axes, logarithmic: bool | None = None) -> None:
    """One y scale for all panels, by values and references; intervals far beyond them are cut.

    The t interval of two seeds is 13 standard errors to each side: it would flatten the rest.

    Args:
        logarithmic: by default where the values are positive and differ much.
    """
    values, references = _heights(panels, VALUE), _heights(panels, REFERENCE)
    ends = _heights(panels, VALUE, INTERVAL)
    logarithmic = suits_log(values) if logarithmic is None else logarithmic
    hidden = references[references <= 0] if logarithmic else references[:0]
    values, ends = (np.concatenate([each, references]) for each in (values, ends))
    if logarithmic:
        values, ends = values[values > 0], ends[ends > 0]
        low, high = max(ends.min(), values.min() / 3), min(ends.max(), values.max() * 3)
        low, high = low / 1.15, high * 1.15
    else:
        room = np.ptp(values) or abs(values[0]) or 1.0
        low, high = max(ends.min(), values.min() - room), min(ends.max(), values.max() + room)
        low, high = low - 0.05 * room, high + 0.05 * room
    for axes in panels:
        axes.set_ylim(low, high)
        if logarithmic:
            set_log(axes)
        for value in np.unique(hidden):
            note(axes, f"real / real: {value:.3f}, has no place on this axis")


def _heights(panels: Sequence[Axes], *kinds: str) -> np.ndarray:
    """The heights of all lines of these kinds."""
    lines = (line for axes in panels for line in axes.lines if line.get_gid() in kinds)
    values = np.concatenate([np.zeros(0), *(np.asarray(line.get_ydata(), float) for line in lines)])
    return values[np.isfinite(values)]


def draw_references(
    axes: Axes, rows: Sequence[Row], score: str, reach: tuple[float, float] = (0, 1)
) -> dict[str, dict]:
    """Lines at the teacher's score and at that of real images, along a part of the x axis; returns
    their styles."""
    for key, style in (("teacher", TEACHER), ("floor", FLOOR)):
        values = [value for row in rows if math.isfinite(value := row[f"{score}_{key}"])]
        if values:
            axes.axhline(sum(values) / len(values), *reach, gid=REFERENCE, **style)
    return dict(REFERENCES)


def log_x(axes: Axes, places: Sequence[float], labels: Sequence[str]) -> None:
    """A logarithmic x axis with a labelled tick at each place."""
    low, high = min(places), max(places)
    axes.set_xscale("log")
    axes.set_xlim(low / 1.4, high * 1.4)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks(list(places), labels)


def note(axes: Axes, text: str) -> None:
    """A remark in the panel, where it covers least."""
    box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1}
    axes.text(0.02, 0.02, text, transform=axes.transAxes, fontsize=9, va="bottom", bbox=box)


def ratio_axis(axes: Axes) -> None:
    """A logarithmic y axis for numbers near 1, and a line there."""
    axes.axhline(1, gid=REFERENCE, color="black", linewidth=1, zorder=0)
    fit_y(axes, logarithmic=True)
    low, high = axes.get_ylim()
    if high > NARROW * low:
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
