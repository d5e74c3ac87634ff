"""`liftplace report`: the curves, samples and settings of training runs, side by side."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

from liftplace import __version__
from liftplace.demo.output import check_free, new_folder
from liftplace.errors import UsageError
from liftplace.settings import check_types

if TYPE_CHECKING:
    from liftplace.analyze.runs import Run

PAGE = "report.html"
CAPTIONS = {
    "losses": "Terms of the loss, without their weights; only “loss” has them. Thin: as logged. "
    "Thick: running mean over about a twentieth of a run's values. All runs of a panel are on one "
    "scale, but “loss” and “kd” compare only between runs of the same objective.",
    "training": "What the optimiser did. w near 0 puts the distillation loss on its coarse term, "
    "near 1 on its fine one.",
    "other": "Everything else that was logged.",
    "samples": "Samples while training, of the averaged weights where there is an average. Those "
    "of one run start from the same noise, as do those of runs with one seed, size and number.",
}
HEADINGS = {
    "losses": "Loss terms",
    "training": "Training",
    "other": "Other metrics",
    "samples": "Samples",
}
SHOWN = (
    "pretrained_teacher_name_or_path", "student", "student_block_out_channels", "loss",
    "max_train_steps", "learning_rate", "lr_scheduler", "use_ema", "seed",
)  # fmt: skip
NOT_COMPARED = {"output_dir", "hub_model_id", "logging_dir", "resume_from_checkpoint"}
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff; margin: 2rem auto;
       max-width: 900px; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.25rem; margin-top: 2.2rem; }
figure { margin: 0; } img { max-width: 100%; height: auto; }
figcaption, .note { color: #444; font-size: 0.9rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.85rem; font-variant-numeric: tabular-nums; }
th, td { padding: 0.3rem 0.7rem; border-bottom: 1px solid #ccc; text-align: right;
         vertical-align: bottom; max-width: 15rem; overflow-wrap: break-word; }
th:first-child, td:first-child { text-align: left; }
"""


@dataclass(frozen=True, kw_only=True)
class ReportConfig:
    """Draw the curves, samples and settings of training runs side by side, into report.html."""

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
    from liftplace.analyze import curves  # matplotlib
    from liftplace.analyze.runs import read_runs

    config.check_complete()
    runs = read_runs(config.runs)
    drawn = [run for run in runs if run.curves]
    with new_folder(Path(config.output_dir)) as folder:
        pictures = {}
        for name, panels in curves.panels_of(drawn).items():
            pictures[name] = folder / f"{name}.png"
            curves.save_curves(drawn, panels, pictures[name])
        if any(run.samples for run in runs):
            pictures["samples"] = folder / "samples.png"
            curves.save_samples(runs, pictures["samples"])
        (folder / PAGE).write_text(page(runs, pictures), encoding="utf-8")
    print(_text_table(summary(runs)))
    print(f"\n{Path(config.output_dir) / PAGE}")


def summary(runs: Sequence["Run"]) -> list[list[str]]:
    """A header and a row a run: how far it is, and each metric at its end."""
    metrics = list({name: None for run in runs for name in run.curves if name != "learning_rate"})
    rows = [["run", "state", "images a step", *metrics]]
    for run in runs:
        batch = "" if run.effective_batch is None else f"{run.effective_batch:,}"
        rows.append([run.label, run.state, batch, *(_at_end(run, name) for name in metrics)])
    return rows


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
    # What a learner minimises stands in its objective; the settings say it again, in part.
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
        "<h1>Training runs</h1>",
        "<h2>Summary</h2>",
        _html_table(summary(runs)),
        '<p class="note">Metrics: mean over the last twentieth of the logged values. They are '
        "terms of the training and no measure of image quality.</p>",
    ]
    for name, picture in pictures.items():
        parts += [f"<h2>{HEADINGS[name]}</h2>", _figure(picture, CAPTIONS[name])]
    settings = settings_table(runs)
    if len(settings) > 1:
        parts += [
            "<h2>Settings</h2>",
            _html_table(settings),
            '<p class="note">The main ones, and all in which the runs differ.</p>',
        ]
    parts.append(f'<p class="note">liftplace {escape(__version__)}</p>')
    body = "\n".join(parts)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>Training runs: {escape(names)}</title>\n<style>{STYLE}</style>\n</head>\n"
        f"<body>\n{body}\n</body>\n</html>\n"
    )


def _figure(picture: Path, caption: str) -> str:
    from PIL import Image

    from liftplace.analyze.curves import DPI

    data = base64.b64encode(picture.read_bytes()).decode("ascii")
    with Image.open(picture) as image:
        width = image.width * 100 // DPI  # all at one scale
    alt = f"{HEADINGS[picture.stem]} of the runs over the optimiser steps"
    return (
        f'<figure><img src="data:image/png;base64,{data}" width="{width}" alt="{alt}">\n'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def _html_table(rows: list[list[str]]) -> str:
    header, *others = rows
    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in header)
    body = "\n".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in others
    )
    return (
        f'<div class="wide"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n'
        "</table></div>"
    )


def _text_table(rows: list[list[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )
