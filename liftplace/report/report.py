"""`liftplace report`: the curves, samples and settings of training runs, side by side."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

from liftplace.common.errors import UsageError
from liftplace.common.files import check_free, new_folder
from liftplace.common.settings import check_types
from liftplace.common.text_table import text_table
from liftplace.plots import html

if TYPE_CHECKING:
    from liftplace.report.runs import Run

PAGE = "report.html"
CAPTIONS = {
    "scores": "Scores of samples while training, without intervals. A star marks each run's best.",
    "losses": "Terms of the loss, without their weights; only “loss” has them. Thin: as logged. "
    "Thick: running mean over about a twentieth of a run's values. All runs of a panel are on one "
    "scale, but “loss” and “kd” compare only between runs of the same objective.",
    "weighted": "The terms as they enter the loss, weights and reduction included: they sum to "
    "it. All runs on one scale.",
    "shares": "The share of the gradient that each weighted term contributes, the projection of "
    "its gradient on the whole one over that one's squared norm. The shares of a step sum to 1, "
    "the dotted lines are 0 and 1; a term below 0 pulls against the others.",
    "norms": "The norm of each weighted term's own gradient, before clipping. All runs on one "
    "scale.",
    "training": "What the optimiser did. w near 0 puts the distillation loss on its coarse term, "
    "near 1 on its fine one.",
    "other": "Everything else that was logged.",
    "samples": "Samples while training, of the averaged weights where there is an average. Those "
    "of one run start from the same noise, as do those of runs with one seed, size and number.",
}
HEADINGS = {
    "scores": "Scores",
    "weighted": "Weighted terms",
    "shares": "Shares of the gradient",
    "norms": "Gradient norms by term",
    "losses": "Loss terms",
    "training": "Training",
    "other": "Other metrics",
    "samples": "Samples",
}
SHOWN = (
    "pretrained_teacher_name_or_path",
    "student",
    "student_block_out_channels",
    "loss",
    "max_train_steps",
    "learning_rate",
    "lr_scheduler",
    "use_ema",
    "seed",
)
NOT_COMPARED = {"output_dir", "hub_model_id", "logging_dir", "resume_from_checkpoint"}


@dataclass(frozen=True, kw_only=True)
class ReportConfig:
    """Put the curves, samples and settings of training runs side by side, into report.html."""

    runs: Positional[Annotated[tuple[str, ...], arg(metavar="RUN [RUN ...]")]] = ()
    """Folders of the runs, finished or not: each the --output_dir of a run."""
    output_dir: str = "liftplace-report"
    """Folder of the report: new or empty."""

    def __post_init__(self) -> None:
        check_types(self)

    def check_complete(self) -> None:
        """Raises UsageError if there is no run, or the report cannot be written."""
        if not self.runs:
            raise UsageError("no RUN is given: name the folders of one or more runs")
        if not self.output_dir:
            raise UsageError("--output_dir is empty: name the folder of the report")
        check_free(Path(self.output_dir))


def report(config: ReportConfig) -> None:
    """Write report.html and its pictures, and print the summary.

    Raises:
        UsageError: a run cannot be read, or the report cannot be written.
    """
    from liftplace.report import curves, term_curves  # matplotlib
    from liftplace.report.runs import read_runs

    config.check_complete()
    runs = read_runs(config.runs)
    logged = [run for run in runs if run.curves]
    with new_folder(Path(config.output_dir)) as folder:
        pictures = {}
        for name, panels in curves.panels_of(logged).items():
            pictures[name] = folder / f"{name}.png"
            curves.save_curves(logged, panels, pictures[name])
        for name, family in term_curves.families_of(logged).items():
            pictures[name] = folder / f"{name}.png"
            term_curves.save_terms(logged, family, pictures[name])
        if any(run.samples for run in runs):
            pictures["samples"] = folder / "samples.png"
            curves.save_samples(runs, pictures["samples"])
        (folder / PAGE).write_text(page(runs, pictures), encoding="utf-8")
    print(text_table(summary(runs)))
    print(f"\n{Path(config.output_dir) / PAGE}")


def summary(runs: Sequence["Run"]) -> list[list[str]]:
    """A header and a row a run: how far it is, and each metric at its end."""
    from liftplace.report.curves import APART, EVALUATION

    logged = {name: None for run in runs for name in run.curves if not name.startswith(APART)}
    scores = [name for name in logged if name.startswith(EVALUATION)]
    metrics = [name for name in logged if name not in ("learning_rate", *scores)]
    best = [f"best {name.removeprefix(EVALUATION)}" for name in scores]
    rows = [["run", "state", "images a step", *best, *metrics]]
    for run in runs:
        batch = "" if run.effective_batch is None else f"{run.effective_batch:,}"
        bests = (_best(run, name) for name in scores)
        rows.append([run.label, run.state, batch, *bests, *(_at_end(run, n) for n in metrics)])
    return rows


def _best(run: "Run", metric: str) -> str:
    from liftplace.report.curves import best_of, better_of

    if metric not in run.curves:
        return "–"
    curve = run.curves[metric]
    best = best_of(curve, better_of(metric))
    return f"{curve.values[best]:.4g} at\u00a0step\u00a0{curve.steps[best]:,}"


def _at_end(run: "Run", metric: str) -> str:
    """The mean over the last twentieth of what was logged."""
    if metric not in run.curves:
        return "–"
    curve = run.curves[metric]
    count = -(-len(curve.values) // 20)
    left_out = f" ({curve.left_out} not finite)" if curve.left_out else ""
    return f"{curve.values[-count:].mean():.4g}{left_out}"


def settings_table(runs: Sequence["Run"]) -> list[list[str]]:
    """A header and a row a setting: the main ones, and those that are not the same in all runs. A
    run without a record has no column."""
    known = [run for run in runs if run.settings]
    # A model's objective is complete; the settings repeat part of it.
    settings = [run.settings | run.objective for run in known]
    names = {name: None for name in SHOWN} | {name: None for each in settings for name in each}
    rows = [["setting", *(run.label for run in known)]]
    for name in names:
        values = [_spell(each.get(name)) for each in settings]
        differ = len(set(values)) > 1 and name not in NOT_COMPARED
        if differ or (name in SHOWN and set(values) - {"–"}):
            rows.append([name, *values])
    return rows


def _spell(value) -> str:
    if value is None:
        return "–"
    if isinstance(value, (list, tuple)):
        return " ".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def page(runs: Sequence["Run"], pictures: dict[str, Path]) -> str:
    """The report as one HTML file without scripts, pictures inside."""
    names = ", ".join(dict.fromkeys(run.label for run in runs))
    parts = [
        html.heading("Summary"),
        html.table(summary(runs)),
        html.note(
            "Metrics: mean over the last twentieth of the logged values; scores: the best. "
            "Terms of the training are no measure of image quality."
        ),
    ]
    for name, picture in pictures.items():
        alt = f"{HEADINGS[name]} over the optimiser steps of {names}"
        caption = CAPTIONS[name]
        parts += [html.heading(HEADINGS[name]), html.figure(picture, alt=alt, caption=caption)]
    settings = settings_table(runs)
    if len(settings) > 1:
        parts += [
            html.heading("Settings"),
            html.table(settings),
            html.note("The main ones, and all in which the runs differ."),
        ]
    return html.page(f"Training runs: {names}", "Training runs", parts)
