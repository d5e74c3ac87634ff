"""The common look of all plots: size, scales, colours, and names and smoothing of lines."""

import math
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

from liftplace.plots.images import new_figure

# Okabe and Ito's palette, which colour-blind readers can tell apart; without its yellow, which is
# too pale for a line on white.
OKABE_ITO = {
    "blue": "#0072B2",
    "vermillion": "#D55E00",
    "green": "#009E73",
    "orange": "#E69F00",
    "purple": "#CC79A7",
    "sky blue": "#56B4E9",
    "black": "#000000",
}
WIDTH, DPI = 9.0, 150  # inches; shown 900 pixels wide, 10 points are 14 pixels high
DASHES = ("-", (0, (4, 1.2)), (0, (5, 1, 1, 1)), (0, (1.4, 0.8)))
NARROW = 2.0  # a logarithmic axis whose ends are nearer has the ticks of a linear one
LABEL = 34  # characters of a name in a picture


def style_of(number: int) -> dict:
    """Colour and dashes of line `number`; dashes differ too, for print without colours."""
    colours = list(OKABE_ITO.values())
    # Seven colours and four kinds of dashes have no common factor: 28 lines before one repeats.
    return {
        "color": colours[number % len(colours)],
        "linestyle": DASHES[number % len(DASHES)],
    }


def short(label: str, length: int = LABEL) -> str:
    """The label, its middle left out where it is longer than `length`."""
    half = (length - 3) // 2
    return label if len(label) <= length else f"{label[:half]} … {label[-half:]}"


def labels_of(paths: list[Path]) -> list[str]:
    """The shortest ends of the paths, of one length, that differ."""
    longest = max(len(path.parts) for path in paths)
    for length in range(1, longest + 1):
        labels = ["/".join(path.parts[-length:]) for path in paths]
        if len(set(labels)) == len(paths):
            break
    return labels


def running_mean(values: np.ndarray, share: int = 20) -> np.ndarray:
    """Mean over about a `share`-th of the values around each; over fewer at both ends."""
    reach = max(1, len(values) // (2 * share))
    sums = np.concatenate([[0.0], np.cumsum(values)])
    positions = np.arange(len(values))
    first = np.maximum(positions - reach, 0)
    last = np.minimum(positions + reach + 1, len(values))
    return (sums[last] - sums[first]) / (last - first)


def suits_log(values: np.ndarray) -> bool:
    """Whether no value is negative, most are not zero, and the largest is far from the smallest."""
    positive = values[values > 0]
    if (values < 0).any() or 2 * len(positive) < max(len(values), 1):
        return False
    return bool(positive.max() > 3 * positive.min())


def set_log(axes: Axes, which: str = "y") -> None:
    """Makes the x or y axis logarithmic, with plain numbers, few enough not to touch."""
    getattr(axes, f"set_{which}scale")("log", nonpositive="mask")
    axis: Axis = getattr(axes, f"{which}axis")
    low, high = sorted(axis.get_view_interval())
    steps = {4: range(1, 10), 30: (1, 2, 3, 5), 1000: (1, 3), math.inf: (1,)}  # by the range
    labelled = next(subs for most, subs in steps.items() if high < most * low)
    if high < NARROW * low:
        axis.set_major_locator(MaxNLocator(6))
        axis.set_minor_locator(NullLocator())
    else:
        axis.set_major_locator(LogLocator(subs=labelled))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def dress(axes: Axes, title: str, x: str, y: str) -> None:
    """Title, labels of the axes with their units, and a grid."""
    axes.set_title(title, fontsize=10)
    axes.set_xlabel(x, fontsize=10)
    axes.set_ylabel(y, fontsize=10)
    axes.tick_params(labelsize=9, which="both")
    axes.grid(alpha=0.3, which="both", linewidth=0.5)


def whole_numbers(axes: Axes) -> None:
    """Numbers on the x axis as of steps: whole, with commas, few."""
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.xaxis.set_major_formatter("{x:,.0f}")


def panels(count: int) -> tuple[Figure, list[Axes]]:
    """So many panels, two a row; the last one alone has its row for itself."""
    rows = math.ceil(count / 2)
    figure = new_figure(WIDTH, 0.4 + 2.7 * rows)
    grid = figure.add_gridspec(rows, 2)
    return figure, [
        figure.add_subplot(
            grid[place // 2, :]
            if place == count - 1 and place % 2 == 0
            else grid[place // 2, place % 2]
        )
        for place in range(count)
    ]


def finish(figure: Figure, styles: dict[str, dict], path: Path) -> None:
    """Adds one legend for all panels above them, and writes the picture."""
    columns = min(len(styles), int(WIDTH / (0.75 + 0.085 * max(map(len, styles)))))
    height = 0.1 + 0.22 * math.ceil(len(styles) / columns)  # inches
    lines = [
        Line2D([], [], label=name, **{"linewidth": 1.6} | style) for name, style in styles.items()
    ]
    figure.set_figheight(figure.get_figheight() - 0.4 + height)
    look = {"frameon": False, "fontsize": 10, "handlelength": 2.8}
    figure.legend(handles=lines, loc="upper center", ncols=columns, **look)
    figure.tight_layout(rect=(0, 0, 1, 1 - height / figure.get_figheight()))
    figure.savefig(path, dpi=DPI)
