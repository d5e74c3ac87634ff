"""What the figures of studies have in common: looks of lines, points with intervals, references."""

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator

from benchmarks.study.reading import METHODS, Row
from benchmarks.study.statistics import Estimate
from liftplace.analyze.axes import set_log, style_of, suits_log

FD, KID = "FD-Lite0, lower is better", "KID, lower is better"
TEACHER = {"color": "#444444", "linestyle": (0, (6, 2)), "linewidth": 1.2}
FLOOR = {"color": "#888888", "linestyle": (0, (1.5, 1.5)), "linewidth": 1.2}
REFERENCES = {"teacher": TEACHER, "real / real": FLOOR}
MARKERS = "osD^vPX"
VALUE, INTERVAL, REFERENCE = "value", "interval", "reference"  # what a line of a panel is
Points = Mapping[float, Estimate]


def styles_of(names: Iterable[str]) -> dict[str, dict]:
    """The look of each line; a method's is the same in all figures."""
    styles = {}
    others = len(METHODS)
    for name in names:
        number = METHODS.index(name) if name in METHODS else others
        others += name not in METHODS
        styles[name] = style_of(number) | {"marker": MARKERS[number % len(MARKERS)]}
    return styles


def draw_points(axes: Axes, lines: Mapping[str, Points], *, dodge: float) -> None:
    """A line a name over x, with bars for the intervals, side by side.

    Args:
        lines: {name: {x: estimate}}.
        dodge: between two names; a share of x on a logarithmic axis, else in units of x.
    """
    styles = styles_of(lines)
    for number, (name, points) in enumerate(lines.items()):
        offset = dodge * (number - (len(lines) - 1) / 2)
        logarithmic = axes.get_xscale() == "log"
        places = [x * math.exp(offset) if logarithmic else x + offset for x in sorted(points)]
        found = [points[x] for x in sorted(points)]
        axes.plot(places, [each.value for each in found], linewidth=1.3, ms=5, gid=VALUE,
                  **styles[name])  # fmt: skip
        for place, each in zip(places, found, strict=True):
            if each.low is not None:
                axes.plot([place, place], [each.low, each.high], linewidth=1.3,
                          color=styles[name]["color"], gid=INTERVAL)  # fmt: skip


def fit_y(axes: Axes) -> None:
    """Scales y by values and references; an interval that reaches far beyond them is cut.

    The t interval of two seeds is 13 standard errors to each side: it would flatten the rest.
    """
    values, ends, references = (_heights(axes, kind) for kind in ("value", "interval", "reference"))
    if suits_log(values):
        hidden = references[references <= 0]
        values, ends = (np.concatenate([each, references]) for each in (values, ends))
        values, ends = values[values > 0], ends[ends > 0]
        low, high = max(ends.min(), values.min() / 3), min(ends.max(), values.max() * 3)
        axes.set_ylim(low / 1.15, high * 1.15)
        set_log(axes)
        for value in np.unique(hidden):
            note(axes, f"real / real: {value:.3f}, no place on this axis")
        return
    values, ends = (np.concatenate([each, references]) for each in (values, ends))
    room = np.ptp(values) or abs(values[0]) or 1.0
    low, high = max(ends.min(), values.min() - room), min(ends.max(), values.max() + room)
    axes.set_ylim(low - 0.05 * room, high + 0.05 * room)


def _heights(axes: Axes, kind: str) -> np.ndarray:
    """The heights of values, or of these and their intervals, or of references."""
    kinds = {"value": (VALUE,), "interval": (VALUE, INTERVAL), "reference": (REFERENCE,)}[kind]
    lines = (line for line in axes.lines if line.get_gid() in kinds)
    values = np.concatenate([np.zeros(0), *(np.asarray(line.get_ydata(), float) for line in lines)])
    return values[np.isfinite(values)]


def draw_references(axes: Axes, rows: Sequence[Row], score: str) -> dict[str, dict]:
    """Lines at the teacher's score and at that of real images; returns their styles."""
    for key, style in (("teacher", TEACHER), ("floor", FLOOR)):
        values = [value for row in rows if math.isfinite(value := row[f"{score}_{key}"])]
        if values:
            axes.axhline(sum(values) / len(values), gid=REFERENCE, **style)
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
    axes.text(0.02, 0.02, text, transform=axes.transAxes, fontsize=9, va="bottom",
              bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1})  # fmt: skip
