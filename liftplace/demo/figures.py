"""The demo's pictures of samples and of training."""

from pathlib import Path

import numpy as np
from torch import Tensor

from liftplace.demo.measure import Measured
from liftplace.demo.methods import LABELS, METHODS
from liftplace.demo.settings import DemoSettings
from liftplace.evaluate.scores import Scores
from liftplace.plots.axes import running_mean
from liftplace.plots.images import new_figure, save_labelled_rows


def save_samples(
    samples: dict[str, Tensor],
    measured: dict[str, Measured],
    floor: Scores,
    path: Path,
    settings: DemoSettings,
) -> None:
    """The first samples of every model, one row each; a column has the same noise."""
    rows = {}
    for name, images in samples.items():
        each = measured[name]
        label = (
            f"{LABELS[name]}\n{_thousands(each.parameters)} parameters, "
            f"FD-Lite0 {each.scores.fd_lite0:.0f}"
        )
        rows[label] = images[: settings.num_shown]
    title = (
        f"One column, one noise. FD-Lite0 over {floor.num_images} samples, lower is better; "
        f"real / real {floor.fd_lite0:.0f}."
    )
    save_labelled_rows(rows, path, title=title)


def save_losses(curves: list[dict], path: Path) -> None:
    """Task loss, coarse term, fine term and weight over the steps.

    Args:
        curves: the lines of metrics.jsonl.
        path: of the PNG.
    """
    panels = (
        ("task loss: (student - target)²", "task", True),
        ("coarse term: |b - 1| + |a|", "coarse", True),
        ("fine term; of output KD: (student - teacher)²", "fine", True),
        ("weight w of the fine term", "weight", False),
    )
    figure = new_figure(10, 6)
    axes = figure.subplots(2, 2, sharex=True)
    steps = np.array([line["step"] for line in curves])
    for panel, (title, term, logarithmic) in zip(axes.flat, panels, strict=True):
        for method in METHODS:
            values = _curve(curves, method.name, term)
            if values is None:
                continue
            style = {"color": method.colour, "linestyle": method.dashes, "label": method.label}
            panel.plot(steps, running_mean(values, share=40), linewidth=1.8, **style)
        panel.set_title(title, fontsize=11)
        panel.grid(alpha=0.3, which="both", linewidth=0.5)
        if logarithmic:
            panel.set_yscale("log")
        else:
            panel.set_ylim(-0.02, 1.02)
    for panel in axes[1]:
        panel.set_xlabel("optimiser step")
    for panel in axes[:, 0]:
        panel.set_ylabel("mean over elements")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="upper center", ncols=len(METHODS), frameon=False)
    figure.tight_layout(rect=(0, 0, 1, 0.94))
    figure.savefig(path, dpi=130)


def _curve(curves: list[dict], model: str, term: str) -> np.ndarray | None:
    """A model's term over the steps; plain output KD's only term stands for the fine one."""
    for name in (term, "kd") if term == "fine" else (term,):
        if f"{model}/{name}" in curves[0]:
            return np.array([line[f"{model}/{name}"] for line in curves])
    return None


def _thousands(count: int) -> str:
    return f"{count / 1e6:.1f} M" if count >= 1e6 else f"{count / 1e3:.0f} k"
