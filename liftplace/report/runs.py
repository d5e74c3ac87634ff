"""The files of a training run: its metrics, settings and samples."""

import json
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml

from liftplace.common.errors import UsageError
from liftplace.plots.axes import labels_of

METRICS, RECORD = "metrics.jsonl", "run.json"
SETTINGS, STUDENT = "config.yaml", "liftplace_config.json"
SAMPLE = re.compile(r"(.+)-(\d{6,})\.png")  # as liftplace.train.loop names them


@dataclass(frozen=True)
class Curve:
    """A metric over the steps at which it was logged, without values that are not finite."""

    steps: np.ndarray  # (N,) int64, ascending
    values: np.ndarray  # (N,) float64, finite
    left_out: int  # values that were NaN or infinite


@dataclass(frozen=True)
class Run:
    """One model of a run."""

    label: str
    settings: dict  # of config.yaml or run.json; empty where the folder has neither
    objective: dict  # of the model; empty where run.json does not have it
    effective_batch: int | None  # images an optimiser step
    curves: dict[str, Curve]  # by metric, without those that have no finite value
    samples: dict[int, Path]  # the pictures by step

    @property
    def last_step(self) -> int:
        """0 where nothing was logged."""
        return max((int(curve.steps[-1]) for curve in self.curves.values()), default=0)

    @property
    def state(self) -> str:
        """How far it is; a run that stopped looks like one that still runs."""
        planned = self.settings.get("max_train_steps")
        if self.last_step == 0:
            return "nothing logged yet"
        if planned is None:
            return f"step {self.last_step:,}"
        word = "finished" if self.last_step >= planned else "unfinished"
        resumed = ", resumed" if self.settings.get("resume_from_checkpoint") else ""
        return f"{word}{resumed}: step {self.last_step:,} of {planned:,}"


def read_runs(folders: tuple[str, ...]) -> list[Run]:
    """The runs in these folders, each labelled by as much of its path as tells it from the others;
    a run of several models gives one Run a model.

    Raises:
        UsageError: a folder is missing, given twice, or holds no metrics; a file in it cannot be
            read; or no run has logged a step.
    """
    paths = [Path(folder).resolve() for folder in folders]
    for path, times in Counter(paths).items():
        if times > 1:
            raise UsageError(f"RUN {path} is given {times} times: name each run once")
    runs = [
        run
        for folder, path, label in zip(folders, paths, labels_of(paths), strict=True)
        for run in _read_run(folder, path, label)
    ]
    if not any(run.last_step for run in runs):
        raise UsageError(f"no step is logged yet in {', '.join(folders)}: wait for the first")
    return runs


def _read_run(name: str, folder: Path, label: str) -> list[Run]:
    if not folder.is_dir():
        raise UsageError(f"RUN {name} is no folder: name the --output_dir of a run")
    if not (folder / METRICS).is_file():
        raise UsageError(f"RUN {name} holds no {METRICS}: name the --output_dir of a run")
    lines = _read_lines(folder / METRICS)
    record = _read_object(folder / RECORD, json.loads)
    # config.yaml is read where there is no record: it may be kept without one.
    settings = record.get("settings") or _read_object(folder / SETTINGS, yaml.safe_load)
    pruned = _read_object(folder / STUDENT, json.loads).get("prune") or {}
    settings = settings | {f"prune: {name}": value for name, value in pruned.items()}
    objectives = record.get("objectives") or {}
    samples = _samples(folder / "samples")
    models = _models(lines, objectives)
    if len(models) == 1:  # it has no name
        objectives, samples = (
            {"": next(iter(each.values()), {})} for each in (objectives, samples)
        )
    return [
        Run(
            label=f"{label}: {name}" if len(models) > 1 else label,
            settings=settings,
            objective=objectives.get(name, {}),
            effective_batch=record.get("effective_batch"),
            curves=_curves(lines, prefix),
            samples=samples.get(name, {}),
        )
        for name, prefix in models.items()
    ]


def _models(lines: list[dict], objectives: dict) -> dict[str, str]:
    """Prefix of each model's metrics by its name; the only one has neither. Without a record, as
    the demo's folder is, the losses tell the models."""
    names = list(objectives)
    if not names:
        keys = {key: None for line in lines for key in line}
        names = [key.removesuffix("/loss") for key in keys if key.endswith("/loss")]
    return {name: f"{name}/" for name in names} if len(names) > 1 else {"": ""}


def _curves(lines: list[dict], prefix: str) -> dict[str, Curve]:
    """The metrics whose names begin so; where a step was logged twice, the later line holds."""
    values_by_step: dict[str, dict[int, float]] = {}
    for line in lines:
        for key, value in line.items():
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if key != "step" and key.startswith(prefix) and number:
                values_by_step.setdefault(key.removeprefix(prefix), {})[line["step"]] = value
    curves = {}
    for name, by_step in values_by_step.items():
        steps = np.array(sorted(by_step))
        values = np.array([by_step[step] for step in steps], dtype=np.float64)
        finite = np.isfinite(values)
        if finite.any():
            curves[name] = Curve(steps[finite], values[finite], int((~finite).sum()))
    return curves


def _samples(folder: Path) -> dict[str, dict[int, Path]]:
    """The pictures by model and step."""
    pictures: dict[str, dict[int, Path]] = {}
    for path in sorted(folder.glob("*.png")):
        if match := SAMPLE.fullmatch(path.name):
            pictures.setdefault(match[1], {})[int(match[2])] = path
    return pictures


def _read_lines(path: Path) -> list[dict]:
    """The lines of metrics.jsonl; a last one that is being written, or was cut off, is left out."""
    lines = []
    for number, line in enumerate(_read(path).splitlines(keepends=True), start=1):
        if not line.endswith("\n"):
            break
        try:
            values = json.loads(line)
            values["step"] = int(values["step"])
        except (ValueError, KeyError, TypeError) as error:
            raise UsageError(
                f"{path}, line {number} is no line of metrics: remove it, or name another run"
            ) from error
        lines.append(values)
    return lines


def _read_object(path: Path, parse) -> dict:
    """What the file holds; {} where there is none."""
    if not path.is_file():
        return {}
    try:
        value = parse(_read(path))
    except (ValueError, yaml.YAMLError) as error:
        raise UsageError(f"cannot read {path}: {' '.join(str(error).split())}") from error
    if not isinstance(value, dict):
        raise UsageError(f"cannot read {path}: it holds no settings")
    return value


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read {path}: {error}") from error
