"""Plots of the terms of one loss beside each other, over the steps of each run."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from liftplace.plots.axes import (
    dress,
    finish,
    panels,
    set_log,
    short,
    style_of,
    suits_log,
    whole_numbers,
)
from liftplace.report.curves import plot_curve
from liftplace.report.runs import Run

# Each with its look; coarse is orange and fine blue here as in the pictures of an analysis.
TERMS = ("fine", "task", "variance", "coarse", "kd", "mse", "feature")


@dataclass(frozen=True)
class Family:
    """Metrics of one kind, a metric a term, which are named prefix/term."""

    prefix: str
    unit: str
    logarithmic: bool = True


FAMILIES = {
    "weighted": Family("weighted/", "part of the loss"),
    "shares": Family("gradient_share/", "share of the gradient", logarithmic=False),
    "norms": Family("gradient_norm/", "norm over all weights"),
}


def families_of(runs: Sequence[Run]) -> dict[str, Family]:
    """Those that any run has logged."""
    logged = [name for run in runs for name in run.curves]
    return {
        key: family
        for key, family in FAMILIES.items()
        if any(name.startswith(family.prefix) for name in logged)
    }


def save_terms(runs: Sequence[Run], family: Family, path: Path) -> None:
    """A panel for each run that has such metrics, a line a term, all panels on one y scale."""
    by_run = {run.label: _terms(run, family) for run in runs}
    by_run = {label: terms for label, terms in by_run.items() if terms}
    figure, grid = panels(len(by_run))
    used = list({term: None for terms in by_run.values() for term in terms})
    used.sort(key=lambda term: TERMS.index(term) if term in TERMS else len(TERMS))
    styles = {
        term: style_of(TERMS.index(term) if term in TERMS else len(TERMS) + number)
        for number, term in enumerate(used)
    }
    for axes, (label, terms) in zip(grid, by_run.items(), strict=True):
        for term, curve in terms.items():
            plot_curve(axes, curve, styles[term])
        dress(axes, short(label), "optimiser step", family.unit)
        whole_numbers(axes)
    _one_scale(grid, family)
    finish(figure, styles, path)


def _terms(run: Run, family: Family) -> dict:
    prefix = family.prefix
    return {
        name.removeprefix(prefix): curve
        for name, curve in run.curves.items()
        if name.startswith(prefix)
    }


def _one_scale(grid: Sequence[Axes], family: Family) -> None:
    values = np.concatenate([line.get_ydata() for axes in grid for line in axes.lines])
    logarithmic = family.logarithmic and suits_log(values)
    low, high = (values[values > 0] if logarithmic else values).min(), values.max()
    if not family.logarithmic:
        low, high = min(low, 0), max(high, 1)
    margin = 0.05 * (high - low) or 0.1
    for axes in grid:
        if logarithmic:
            axes.set_ylim(low / 1.2, high * 1.2)
            set_log(axes)
            continue
        axes.set_ylim(low - margin, high + margin)
        if not family.logarithmic:
            for whole in (0, 1):
                axes.axhline(whole, color="#666666", linewidth=1.0, linestyle=(0, (2, 2)))
