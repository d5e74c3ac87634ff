"""Pictures of training: the metrics of several runs over the steps, and their samples."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from PIL import Image

from liftplace.analyze.colours import OKABE_ITO
from liftplace.analyze.runs import Curve, Run
from liftplace.errors import UsageError
from liftplace.evaluate.pictures import new_figure

WIDTH, DPI = 9.0, 150  # inches; shown 900 pixels wide, 10 points are 14 pixels high
DASHES = ("-", (0, (4, 1.2)), (0, (5, 1, 1, 1)), (0, (1.4, 0.8)))
FEW = 40  # logged values that are marked one by one, and not smoothed
COLUMNS = 5  # of samples
LABEL = 34  # characters of a run's name in a picture


@dataclass(frozen=True)
class Panel:
    """How one metric is drawn."""

    title: str
    unit: str | None = None  # by default that of the run's reduction
    logarithmic: bool = True
    smooth: bool = True
    limits: tuple[float, float] | None = None


TERMS = {  # coarse and fine are logged before the reduction scales them
    "loss": Panel("loss: the weighted sum that is minimised"),
    "task": Panel("task: (student − target)²"),
    "variance": Panel("variance: variational bound, in bits"),
    "kd": Panel("kd: the run's distillation loss"),
    "coarse": Panel("coarse: of slope and intercept", "mean over elements"),
    "fine": Panel("fine: left by the linear fit", "mean over elements"),
    "mse": Panel("mse: (student − teacher)²"),
    "feature": Panel("feature: hidden states"),
}
TRAINING = {
    "weight": Panel(
        "w: weight of the fine term", "w, from 0 to 1", logarithmic=False, limits=(-0.02, 1.02)
    ),
    "gradient_norm": Panel("gradient norm, before clipping", "norm over all weights"),
    "learning_rate": Panel("learning rate", "learning rate", logarithmic=False, smooth=False),
}


def panels_of(runs: Sequence[Run]) -> dict[str, dict[str, Panel]]:
    """The metrics that any run has, by picture: "losses", "training" and "other"."""
    logged = {name: None for run in runs for name in run.curves}
    unknown = {
        name: Panel(name, "as logged", logarithmic="share" not in name)
        for name in logged
        if name not in TERMS | TRAINING
    }
    gradients = {name: panel for name, panel in unknown.items() if "gradient" in name}
    other = {name: panel for name, panel in unknown.items() if name not in gradients}
    unit = _unit({run.objective.get("reduction") for run in runs})
    terms = {
        name: Panel(panel.title, panel.unit or unit)
        for name, panel in TERMS.items()
        if name in logged
    }
    training = {name: panel for name, panel in TRAINING.items() if name in logged}
    pictures = {"losses": terms, "training": training | gradients, "other": other}
    return {name: panels for name, panels in pictures.items() if panels}


def _unit(reductions: set[str | None]) -> str:
    words = {"mean": "mean over elements", "sum": "sum over a sample"}
    return words.get(next(iter(reductions)), "as logged") if len(reductions) == 1 else "as logged"


def save_curves(runs: Sequence[Run], panels: dict[str, Panel], path: str | Path) -> None:
    """Writes one PNG with a panel for each metric, in which every run that has it is a line.

    The raw values are thin and pale; the running mean over about a twentieth of a run's values is
    thick. A run of few values has them marked instead.
    """
    rows = -(-len(panels) // 2)
    labels = [short(run.label) for run in runs]
    legend_columns = min(len(runs), int(WIDTH / (0.7 + 0.085 * max(map(len, labels)))))
    top = 0.15 + 0.22 * -(-len(runs) // legend_columns)  # inches
    height = top + 2.6 * rows
    figure = new_figure(WIDTH, height)
    grid = figure.add_gridspec(rows, 2)
    for place, (metric, panel) in enumerate(panels.items()):
        alone = place == len(panels) - 1 and place % 2 == 0  # it has the row for itself
        axes = figure.add_subplot(grid[place // 2, :] if alone else grid[place // 2, place % 2])
        _draw(axes, runs, metric, panel)
    lines = [
        axes.plot([], [], linewidth=1.8, label=label, **style_of(number))[0]
        for number, label in enumerate(labels)
    ]
    figure.legend(
        handles=lines, loc="upper center", ncols=legend_columns, frameon=False, fontsize=10,
        handlelength=2.6,
    )  # fmt: skip
    figure.tight_layout(rect=(0, 0, 1, 1 - top / height))
    figure.savefig(path, dpi=DPI)


def _draw(axes: Axes, runs: Sequence[Run], metric: str, panel: Panel) -> None:
    drawn = {number: run.curves[metric] for number, run in enumerate(runs) if metric in run.curves}
    for number, curve in drawn.items():
        style = style_of(number)
        if len(curve.values) < FEW or not panel.smooth:
            marker = "o" if len(curve.values) < FEW else None
            axes.plot(curve.steps, curve.values, linewidth=1.6, marker=marker, ms=4, **style)
        else:
            pale = {"color": style["color"], "alpha": 0.3, "linewidth": 0.7}
            axes.plot(curve.steps, curve.values, **pale)
            axes.plot(curve.steps, running_mean(curve.values), linewidth=1.8, **style)
    if panel.logarithmic and suits_log(list(drawn.values())):
        _set_log(axes)
    if panel.limits is not None:
        axes.set_ylim(panel.limits)
    axes.set_title(panel.title, fontsize=10)
    axes.set_xlabel("optimiser step", fontsize=10)
    axes.set_ylabel(panel.unit, fontsize=10)
    axes.set_xlim(0, 1.02 * max(run.last_step for run in runs))
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.tick_params(labelsize=9, which="both")
    axes.grid(alpha=0.3, which="both", linewidth=0.5)


def _set_log(axes: Axes) -> None:
    """A logarithmic y axis with plain numbers, few enough not to touch."""
    axes.set_yscale("log", nonpositive="mask")
    low, high = axes.get_ylim()
    labelled = (1, 2, 3, 5) if high < 30 * low else (1, 3) if high < 1000 * low else (1,)
    axes.yaxis.set_major_locator(LogLocator(subs=labelled))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def style_of(number: int) -> dict:
    """Colour and dashes of run `number`; dashes differ too, for print without colours."""
    colours = list(OKABE_ITO.values())
    # Seven colours and four kinds of dashes have no common factor: 28 runs before one repeats.
    return {
        "color": colours[number % len(colours)],
        "linestyle": DASHES[number % len(DASHES)],
    }


def running_mean(values: np.ndarray, share: int = 20) -> np.ndarray:
    """Mean over about a `share`-th of the values around each; over fewer at both ends."""
    reach = max(1, len(values) // (2 * share))
    sums = np.concatenate([[0.0], np.cumsum(values)])
    positions = np.arange(len(values))
    first = np.maximum(positions - reach, 0)
    last = np.minimum(positions + reach + 1, len(values))
    return (sums[last] - sums[first]) / (last - first)


def suits_log(curves: Sequence[Curve]) -> bool:
    """Whether no value is negative, most are not zero, and the largest is far from the smallest."""
    values = np.concatenate([curve.values for curve in curves])
    positive = values[values > 0]
    if (values < 0).any() or 2 * len(positive) < len(values):
        return False
    return bool(positive.max() > 3 * positive.min())


def short(label: str) -> str:
    """The label, its middle left out where it is long."""
    half = (LABEL - 3) // 2
    return label if len(label) <= LABEL else f"{label[:half]} … {label[-half:]}"


def save_samples(runs: Sequence[Run], path: str | Path) -> None:
    """Writes one PNG with a row of samples over the steps for each run that has some.

    Where the runs share steps these are shown, thinned to five with the first and the last; else
    each run's own.
    """
    runs = [run for run in runs if run.samples]
    shared = set.intersection(*(set(run.samples) for run in runs))
    chosen = [_thin(sorted(shared if len(shared) > 1 else run.samples)) for run in runs]
    columns = max(map(len, chosen))
    cell = WIDTH / COLUMNS - 0.08  # inches
    row_height = cell + 0.62
    height = row_height * len(runs)
    width = max(columns * (cell + 0.08), 4.0)
    figure = new_figure(width, height)
    for row, (run, steps) in enumerate(zip(runs, chosen, strict=True)):
        top = height - row * row_height
        figure.text(0.04 / width, (top - 0.28) / height, run.label, fontsize=11, weight="bold")
        for column, step in enumerate(steps):
            left, bottom = 0.04 + column * (cell + 0.08), top - 0.52 - cell
            axes = figure.add_axes((left / width, bottom / height, cell / width, cell / height))
            axes.imshow(_pixels(run.samples[step]))
            axes.set_title(f"step {step:,}", fontsize=10, pad=3)
            axes.set_axis_off()
    figure.savefig(path, dpi=DPI)


def _pixels(path: Path) -> np.ndarray:
    try:
        with Image.open(path) as picture:
            return np.asarray(picture.convert("RGB"))
    except OSError as error:
        raise UsageError(
            f"cannot read {path}: {error}; if its run is still writing it, try again"
        ) from error


def _thin(steps: list[int]) -> list[int]:
    if len(steps) <= COLUMNS:
        return steps
    return [steps[round(i * (len(steps) - 1) / (COLUMNS - 1))] for i in range(COLUMNS)]
