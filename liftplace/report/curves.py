"""Plots of training: the metrics of several runs over the steps, and their samples."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from PIL import Image

from liftplace.common.errors import UsageError
from liftplace.plots.axes import (
    DPI,
    WIDTH,
    dress,
    running_mean,
    set_log,
    short,
    style_of,
    suits_log,
    whole_numbers,
)
from liftplace.plots.images import new_figure
from liftplace.report.runs import Curve, Run

FEW = 40  # logged values that are marked one by one, and not smoothed
COLUMNS = 5  # of samples
EVALUATION = "evaluation/"
APART = (
    "weighted/",
    "gradient_share/",
    "gradient_norm/",
)  # plotted by liftplace.report.term_curves


@dataclass(frozen=True)
class Panel:
    """How one metric is plotted."""

    title: str
    unit: str | None = None  # by default that of the run's reduction
    logarithmic: bool = True
    smooth: bool = True
    limits: tuple[float, float] | None = None
    better: str | None = None  # "lower" or "higher": the best value is marked


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
    """The metrics that any run has, by picture: "scores", "losses", "training" and "other"."""
    logged = {name: None for run in runs for name in run.curves if not name.startswith(APART)}
    scores = {name: _score(name) for name in logged if name.startswith(EVALUATION)}
    unknown = {
        name: Panel(name, "as logged", logarithmic="share" not in name)
        for name in logged
        if name not in TERMS | TRAINING | scores
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
    pictures = {"scores": scores, "losses": terms, "training": training | gradients, "other": other}
    return {name: panels for name, panels in pictures.items() if panels}


def _score(metric: str) -> Panel:
    name, better = metric.removeprefix(EVALUATION), better_of(metric)
    unit = f"{better} is better"
    if name in ("precision", "recall"):
        return Panel(name, unit, False, smooth=False, limits=(-0.02, 1.02), better=better)
    return Panel(name, unit, smooth=False, better=better)


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
        _plot(axes, runs, metric, panel)
    lines = [
        axes.plot([], [], linewidth=1.8, label=label, **style_of(number))[0]
        for number, label in enumerate(labels)
    ]
    look = {"frameon": False, "fontsize": 10, "handlelength": 2.6}
    figure.legend(handles=lines, loc="upper center", ncols=legend_columns, **look)
    figure.tight_layout(rect=(0, 0, 1, 1 - top / height))
    figure.savefig(path, dpi=DPI)


def _plot(axes: Axes, runs: Sequence[Run], metric: str, panel: Panel) -> None:
    curves = {number: run.curves[metric] for number, run in enumerate(runs) if metric in run.curves}
    for number, curve in curves.items():
        plot_curve(axes, curve, style_of(number), smooth=panel.smooth)
        if panel.better is not None:
            best = best_of(curve, panel.better)
            star = {"marker": "*", "ms": 13, "mec": "white", "color": style_of(number)["color"]}
            axes.plot(curve.steps[best], curve.values[best], zorder=3, clip_on=False, **star)
    if panel.logarithmic and suits_log(np.concatenate([each.values for each in curves.values()])):
        set_log(axes)
    if panel.limits is not None:
        axes.set_ylim(panel.limits)
    dress(axes, panel.title, "optimiser step", panel.unit)
    axes.set_xlim(0, 1.02 * max(run.last_step for run in runs))
    whole_numbers(axes)


def plot_curve(axes: Axes, curve: Curve, style: dict, *, smooth: bool = True) -> None:
    """Few values are marked; of many the raw ones are pale beside their running mean."""
    few = len(curve.values) < FEW
    if few or not smooth:
        marker = "o" if few else None
        axes.plot(curve.steps, curve.values, linewidth=1.6, marker=marker, ms=4, **style)
    else:
        pale = {"color": style["color"], "alpha": 0.3, "linewidth": 0.7}
        axes.plot(curve.steps, curve.values, **pale)
        axes.plot(curve.steps, running_mean(curve.values), linewidth=1.8, **style)


def better_of(metric: str) -> str:
    """Whether "higher" or "lower" values of such a score are better."""
    name = metric.removeprefix(EVALUATION)
    return "higher" if name in ("precision", "recall") or name.startswith("IS") else "lower"


def best_of(curve: Curve, better: str) -> int:
    """Index of the best value, the first of equal ones."""
    return int(curve.values.argmax() if better == "higher" else curve.values.argmin())


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
