"""The rows of a study, as its figures and tables take them."""

import math
import re
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import results
from benchmarks.study.grid import LABELS
from benchmarks.study.rows import COLUMNS, TEXTS, TIMESTEP_COLUMNS, StudyFiles
from benchmarks.study.statistics import Estimate, geometric_mean, mean, paired_ratio
from benchmarks.study.studies import METHODS, PREFIXES, STUDIES

ORDER = tuple(METHODS)  # of lines
DEFAULT = "LIFT+PLACE"
BASELINES = ("output KD", "no KD")
AXES = {  # what a study varies beside the method and its variant
    "capacity": ("student",),
    "teacher_size": ("teacher",),
    "initialisation": ("student", "initialisation"),
    "normalisation": ("teacher", "student"),
    "sampler": ("teacher", "student"),
    "stability": ("learning_rate",),
    "long": ("step",),
    "regime": ("student",),
    "regime_terms": ("student",),
    "regime_others": ("teacher", "student"),
    "regime_rates": ("learning_rate",),
    "regime_32": ("student",),
}
_NUMBERS = {*COLUMNS, *TIMESTEP_COLUMNS} - {*TEXTS, "settings"}
_FILE = re.compile(r"study_(\w+)_(cpu|cuda)\.csv")

Row = dict


@dataclass(frozen=True)
class Results:
    """What a folder holds of one study.

    Attributes:
        name, device: of the study; the device is cpu or cuda.
        files: where that is.
        rows: one a cell and step, with columns beside those of the file: "coarse_error" and
            "fine_error", what of the error to the teacher, over all timesteps, a linear fit takes
            away and what it leaves, and "coarse_of_error", the share of the first in both; with
            "noisy_" before them the same of the noisier half of the timesteps; "quiet_error" is the
            whole error at the other half.
        timesteps: one a cell, step and timestep.
    """

    name: str
    device: str
    files: StudyFiles
    rows: list[Row]
    timesteps: list[Row]

    @property
    def kind(self) -> str:
        """The study that it is, whatever the data."""
        prefix = next(filter(self.name.startswith, PREFIXES), "")
        return self.name.removeprefix(prefix)

    @property
    def is_regime(self) -> bool:
        """Whether every student is scored under both samplers."""
        return self.kind.startswith("regime")

    @property
    def axes(self) -> tuple[str, ...]:
        return AXES.get(self.kind, ())


def find(folder: Path) -> list[Results]:
    """The studies of a folder that have rows, by name."""
    names = (_FILE.fullmatch(path.name) for path in sorted(folder.glob("study_*.csv")))
    found = [load(folder, *name.groups()) for name in names if name]
    return [each for each in found if each.rows]


def load(folder: Path, name: str, device: str) -> Results:
    """A study's rows in the order in which it declares its levels."""
    files = StudyFiles(folder, name, device)
    rows, timesteps = (_read(path) for path in (files.rows_path, files.timesteps_path))
    measured = by_all(timesteps, ("hash", "step"))
    for row in rows:
        row |= _parts_of_error(measured.get((row["hash"], row["step"]), []))
    if name in STUDIES:
        levels = [list(level) for level in STUDIES[name].levels()]

        def places(row: Row) -> list[int]:
            labels = zip((row[label] for label in LABELS), levels, strict=True)
            return [level.index(each) if each in level else len(level) for each, level in labels]

        rows.sort(key=places)
    return Results(name, device, files, rows, timesteps)


def _parts_of_error(timesteps: list[Row]) -> dict[str, float]:
    half = max((row["timestep"] for row in timesteps), default=0) / 2
    noisy = [row for row in timesteps if row["timestep"] > half]
    quiet = [row["total"] for row in timesteps if row["timestep"] <= half]
    quiet_error = math.fsum(quiet) if quiet else math.nan
    return _parts("", timesteps) | _parts("noisy_", noisy) | {"quiet_error": quiet_error}


def _parts(prefix: str, timesteps: list[Row]) -> dict[str, float]:
    coarse = fine = share = math.nan
    if timesteps:
        total, coarse = (math.fsum(row[key] for row in timesteps) for key in ("total", "coarse"))
        fine, share = total - coarse, coarse / total if total else math.nan
    parts = {"coarse_error": coarse, "fine_error": fine, "coarse_of_error": share}
    return {prefix + name: value for name, value in parts.items()}


def _read(path: Path) -> list[Row]:
    """Rows with numbers for what is one; what was not measured is not a number."""
    blank = dict.fromkeys(_NUMBERS, math.nan)  # a file may be older than a column
    return [
        blank | {key: _number(key, value) for key, value in row.items()}
        for row in results.load(path)
    ]


def _number(key: str, value: str):
    if key in ("seed", "step"):
        return int(value)
    if key in _NUMBERS:
        return float(value) if value else math.nan
    return value


def grouped(rows: Iterable[Row], key: Callable[[Row], Any]) -> dict:
    """The rows by what `key` makes of each, in the order of first appearance."""
    groups: dict = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return groups


def by(rows: Iterable[Row], column: str) -> dict:
    return grouped(rows, lambda row: row[column])


def by_all(rows: Iterable[Row], columns: Sequence[str]) -> dict[tuple, list[Row]]:
    return grouped(rows, lambda row: tuple(row[name] for name in columns))


def parts(study: Results) -> list[tuple[str, list[Row]]]:
    """The rows apart by every label that is on no axis, each with a name where there are several.

    What is drawn together then differs in the method, its variant and the study's axis alone.
    """
    fixed = [key for key in LABELS[:3] if key not in study.axes]
    groups = by_all(study.rows, fixed)
    varied = [place for place in range(len(fixed)) if len({key[place] for key in groups}) > 1]
    return [
        (", ".join(f"{fixed[place]} {key[place]}" for place in varied), rows)
        for key, rows in groups.items()
    ]


def name_of(row: Row) -> str:
    """The name of a row's line: its method; the variant, where it is one of LIFT+PLACE."""
    if not row["variant"]:
        return row["method"]
    if row["method"] == DEFAULT:
        return row["variant"]
    return f"{row['method']}, {row['variant']}"


def lines(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """The rows by name, methods in their usual order and the rest in order of appearance."""
    groups = grouped(rows, name_of)
    names = [*(name for name in ORDER if name in groups), *groups]
    return {name: groups[name] for name in names}


def compared(rows: Sequence[Row], axes: Sequence[str]) -> list[Row]:
    """The confirming rows at each setting's own learning rate, at the last step.

    Where the step is an axis, each setting has a learning rate for each step; where the learning
    rate is, all of them stay.
    """
    kept = rows if "step" in axes else _last(rows)
    groups = by_all(kept, _settings(axes)).values()
    return [row for group in groups for row in _at_own_rate(group)]


def _settings(axes: Sequence[str]) -> tuple[str, ...]:
    """The columns that tell one setting from another, but for the seed."""
    return tuple(dict.fromkeys((*LABELS, *axes)))


def _last(rows: Iterable[Row]) -> list[Row]:
    found: dict[tuple, Row] = {}
    for row in rows:
        key = (row["phase"], row["hash"])
        if key not in found or row["step"] >= found[key]["step"]:
            found[key] = row
    return list(found.values())


def _at_own_rate(group: list[Row]) -> list[Row]:
    """Rows of one setting at the learning rate that the search chose.

    Without a search the confirming rows choose themselves: of the rates with the most seeds and the
    fewest that diverged, the one of the smallest distance.
    """
    rates = by((row for row in group if row["phase"] == "confirm"), "learning_rate")
    if not rates:
        return []
    searched = [row for row in group if row["phase"] == "search" and row["status"] == "ok"]
    best = min(searched, key=lambda row: row["fd"], default=None)
    if best and best["learning_rate"] in rates:
        return rates[best["learning_rate"]]
    return min(rates.values(), key=_rank)


def _rank(rows: list[Row]) -> tuple:
    distance = estimate(rows)
    return -len(rows), diverged(rows), distance.value if distance else math.inf


def diverged(rows: Iterable[Row]) -> int:
    """How many diverged or ended without finite weights."""
    return sum(row["status"] != "ok" for row in rows)


def measured(rows: Iterable[Row], key: str = "fd") -> dict[int, float]:
    """A score by seed, of those that did not diverge and have it."""
    return {r["seed"]: r[key] for r in rows if r["status"] == "ok" and not math.isnan(r[key])}


def estimate(rows: Iterable[Row], key: str = "fd") -> Estimate | None:
    """A score over the seeds of `measured`: the geometric mean of a Frechet distance, the mean of
    any other, which may be negative."""
    average = geometric_mean if key.startswith("fd") else mean
    return average(measured(rows, key).values())


def ratio_of(rows: Iterable[Row], others: Iterable[Row], key: str = "fd") -> Estimate | None:
    """A score over that of others, paired by seed."""
    return paired_ratio(measured(rows, key), measured(others, key))


def median(rows: Iterable[Row], key: str) -> float | None:
    """The median of a column over all seeds, diverged ones too; None where it was not measured."""
    values = [row[key] for row in rows if not math.isnan(row[key])]
    return statistics.median(values) if values else None


def ratio_to(
    rows: Iterable[Row], axes: Sequence[str], other: str = BASELINES[0], key: str = "fd"
) -> Callable[[list[Row]], Estimate | None]:
    """From a setting's rows to its score over that of `other` at the same place on the axes."""
    others = by_all((row for row in rows if name_of(row) == other), axes)

    def ratio(group: list[Row]) -> Estimate | None:
        return ratio_of(group, others.get(tuple(group[0][axis] for axis in axes), []), key)

    return ratio


def columns(rows: Sequence[Row], axes: Sequence[str]) -> dict[str, list[Row]]:
    """The rows by what they are on the axes: large students first, else ascending.

    What all of an axis's labels have in common is left out.
    """
    groups = by_all(rows, axes)

    def place(key) -> list:
        row = groups[key][0]
        order = {"student": -row["share"], "teacher": row["parameters"] / row["share"]}
        return [order.get(axis, row[axis]) for axis in axes if axis != "initialisation"]

    names = [short_labels(axis, by(rows, axis)) for axis in axes]
    return {
        ", ".join(of_axis[value] for of_axis, value in zip(names, key, strict=True)): groups[key]
        for key in sorted(groups, key=place)
    }


def short_labels(axis: str, values: Iterable) -> dict:
    """What to call each value of an axis: a label without the parts that all of them have."""
    if axis == "learning_rate":
        return {value: f"rate {value:g}" for value in values}
    if axis == "step":
        return {value: f"{value:,} steps" for value in values}
    parts = {label: label.split(", ") for label in values}
    shared = set.intersection(*map(set, parts.values())) if len(parts) > 1 else set()
    return {
        label: ", ".join(part for part in of_label if part not in shared)
        for label, of_label in parts.items()
    }


def seeds_of(rows: Sequence[Row], axes: Sequence[str]) -> str:
    """How many seeds the settings have: "3 seeds", or "1 to 3 seeds" of a study under way."""
    counts = [len(group) for group in by_all(rows, _settings(axes)).values()]
    least, most = min(counts), max(counts)
    return f"{least} to {most} seeds" if least < most else f"{most} seed{'s' * (most > 1)}"
