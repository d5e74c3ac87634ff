"""The rows of a study, as its figures and tables take them."""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import results
from benchmarks.study.grid import LABELS
from benchmarks.study.statistics import Estimate, geometric_mean, mean, paired_ratio

METHODS = ("no KD", "output KD", "feature KD", "output + feature KD", "LIFT", "LIFT+PLACE",
           "LIFT+PLACE + feature KD")  # fmt: skip
BASELINES = ("output KD", "no KD")
AXES = {  # the label or setting that a study varies beside the method
    "capacity": "student",
    "teacher_size": "teacher",
    "initialisation": "initialisation",
    "stability": "learning_rate",
    "long": "step",
}
_WHOLE = ("seed", "step")
_REAL = ("learning_rate", "fd", "fd_floor", "fd_teacher", "kid", "kid_floor", "kid_teacher",
         "pixel_error", "task_error", "teacher_error", "spikes", "weight", "coarse_share",
         "fine_share", "parameters", "share", "timestep", "power", "total", "coarse", "fine",
         "slope", "intercept")  # fmt: skip
_FILE = re.compile(r"study_(\w+)_(cpu|cuda)\.csv")

Row = dict


@dataclass(frozen=True)
class Results:
    """What a folder holds of one study.

    Attributes:
        name, device: of the study; the device is cpu or cuda.
        path: of its CSV file.
        rows: one a cell and step.
        timesteps: one a cell, step and timestep.
        samples: the folder of the cells' samples, which need not exist.
    """

    name: str
    device: str
    path: Path
    rows: list[Row]
    timesteps: list[Row]
    samples: Path

    @property
    def axis(self) -> str | None:
        return AXES.get(self.name)


def find(folder: Path) -> list[Results]:
    """The studies of a folder that have rows, by name."""
    names = (_FILE.fullmatch(path.name) for path in sorted(folder.glob("study_*.csv")))
    found = [load(folder, *name.groups()) for name in names if name]
    return [each for each in found if each.rows]


def load(folder: Path, name: str, device: str) -> Results:
    path = folder / f"study_{name}_{device}.csv"
    timesteps = path.with_name(f"{path.stem}_timesteps.csv")
    samples = path.with_name(f"{path.stem}_samples")
    return Results(name, device, path, _read(path), _read(timesteps), samples)


def _read(path: Path) -> list[Row]:
    """Rows with numbers for what is one; what was not measured is not a number."""
    return [{key: _number(key, value) for key, value in row.items()}
            for row in results.load(path)]  # fmt: skip


def _number(key: str, value: str):
    if key in _WHOLE:
        return int(value)
    if key in _REAL:
        return float(value) if value else math.nan
    return value


def by(rows: Iterable[Row], *keys: str) -> dict:
    """The rows by these columns, one or a tuple of several, in the order of first appearance."""
    found: dict = {}
    for row in rows:
        key = tuple(row[each] for each in keys)
        found.setdefault(key if len(keys) > 1 else key[0], []).append(row)
    return found


def parts(study: Results) -> list[tuple[str, list[Row]]]:
    """The rows apart by every label that is on no axis, each with a name where there are several.

    What is drawn together then differs in the method, its variant and the study's axis alone.
    """
    fixed = [key for key in LABELS[:3] if key != study.axis]
    groups = by(study.rows, *fixed)
    told = [place for place in range(len(fixed)) if len({key[place] for key in groups}) > 1]
    return [(", ".join(f"{fixed[place]} {key[place]}" for place in told), rows)
            for key, rows in groups.items()]  # fmt: skip


def name_of(row: Row) -> str:
    """The name of a row's line: its method, and its variant where it has one."""
    return f"{row['method']}, {row['variant']}" if row["variant"] else row["method"]


def lines(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """The rows by name, methods in their usual order and the rest in order of appearance."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(name_of(row), []).append(row)
    usual = [name for name in METHODS if name in found]
    return {name: found[name] for name in [*usual, *(each for each in found if each not in usual)]}


def compared(rows: Sequence[Row], axis: str | None) -> list[Row]:
    """The confirming rows at each setting's own learning rate, at the last step.

    Where the axis is the step, each setting has a learning rate for each step; where it is the
    learning rate, all of them stay.
    """
    kept = rows if axis == "step" else _last(rows)
    groups = by(kept, *LABELS, *([axis] if axis in ("step", "learning_rate") else [])).values()
    return [row for group in groups for row in _at_own_rate(group)]


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
    distance = distance_of(rows)
    return -len(rows), diverged(rows), distance.value if distance else math.inf


def diverged(rows: Iterable[Row]) -> int:
    """How many diverged or ended without finite weights."""
    return sum(row["status"] != "ok" for row in rows)


def scores(rows: Iterable[Row], key: str = "fd") -> dict[int, float]:
    """A score by seed, of those that did not diverge."""
    return {row["seed"]: row[key] for row in rows if row["status"] == "ok"}


def distance_of(rows: Iterable[Row]) -> Estimate | None:
    """The geometric mean of FD over the seeds that did not diverge."""
    return geometric_mean(scores(rows).values())


def kernel_distance_of(rows: Iterable[Row]) -> Estimate | None:
    """The mean of KID, which may be negative, over the seeds that did not diverge."""
    return mean(scores(rows, "kid").values())


def ratio_of(rows: Iterable[Row], others: Iterable[Row]) -> Estimate | None:
    """FD over that of others, paired by seed."""
    return paired_ratio(scores(rows), scores(others))


def average(rows: Iterable[Row], key: str) -> float | None:
    """The mean of a column where it was measured; None where it nowhere was."""
    values = [value for value in scores(rows, key).values() if not math.isnan(value)]
    return sum(values) / len(values) if values else None


def default_of(rows: Iterable[Row]) -> str | None:
    """The name of LIFT+PLACE as it comes: without a variant, or the one called "default"."""
    ours = [row for row in rows if row["method"] == "LIFT+PLACE"]
    return next((name_of(row) for row in ours if row["variant"] in ("", "default")), None)
