"""Tables of studies for docs/results.md: each with its figures and with the rows behind it."""

import itertools
import math
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from benchmarks import report
from benchmarks.study import figures, reading, regime
from benchmarks.study.reading import BASELINES, DEFAULT, Results, Row
from benchmarks.study.statistics import Estimate
from benchmarks.study.studies import STUDIES

PICTURES = Path("results") / "study"  # below the page's folder
ERRORS = {"coarse_error": "coarse", "fine_error": "fine"}  # parts of a student's, by column
Cell = Callable[[list[Row]], str]


def tables(folder: Path) -> dict[str, Callable[[Path], str]]:
    """What `report.fill` writes between the markers `NAME_DEVICE`, for every study."""
    names = dict.fromkeys([*STUDIES, *(study.name for study in reading.find(folder))])
    return {f"{name}_{device}": partial(_block, name=name, device=device)
            for name, device in itertools.product(names, ("cpu", "cuda"))}  # fmt: skip


def _block(folder: Path, name: str, device: str) -> str:
    """Figures and tables of a study, or the command that makes them."""
    study = reading.load(folder, name, device)
    made = [_origin(study)]
    for title, rows in reading.parts(study):
        if compared := reading.compared(rows, study.axes):
            made += _tables(study, compared, title)
    if len(made) == 1:
        return f"Not measured yet: `python -m benchmarks study {name} --device {device}`."
    seen = [f"![{_spoken(picture)}]({PICTURES / picture})" for picture in figures.pictures(study)]
    return "\n\n".join([made[0], *seen, *made[1:]])


def _spoken(picture: str) -> str:
    return Path(picture).stem.replace("_", " ")


def _origin(study: Results) -> str:
    """Where the numbers are, and how many cells stand behind them."""
    cells = reading.by_all(study.rows, ("phase", "hash"))
    confirmed = [rows[-1] for (phase, _), rows in cells.items() if phase == "confirm"]
    seeds = sorted({row["seed"] for row in confirmed})
    name = study.files.rows_path.name
    link = f"[{name}](../benchmarks/results/{name})"
    return (f"Rows: {link}; {len(confirmed)} students of {len(seeds)} seeds, "
            f"{reading.diverged(confirmed)} of them diverged, and {len(cells) - len(confirmed)} "
            f"that only chose learning rates. {_references(study)}")  # fmt: skip


def _references(study: Results) -> str:
    """What the teachers and real images score."""
    rows = [row for row in study.rows if row["status"] == "ok"]
    students = reading.told_apart("student", reading.by(rows, "student"))
    scored: dict[tuple[str, str], Row] = {}  # as it is told, because machines round differently
    for row in rows:
        fd, kid = (report.number(row[f"{score}_teacher"]) for score in ("fd", "kid"))
        leading = row["fd_teacher_leading"]
        more = "" if math.isnan(leading) else f", {report.number(leading)} in {regime.LEADING}"
        scored.setdefault((row["teacher"], f"FD-Lite0 {fd}, KID {kid}{more}"), row)
    often = Counter(teacher for teacher, _ in scored)
    said = []
    for (teacher, scores), row in scored.items():
        name = teacher if often[teacher] == 1 else f"{teacher}, {students[row['student']]}"
        said.append(f"Teacher of {name}: {scores}")
    said += [f"real / real: {report.number(row['fd_floor'])} and {report.number(row['kid_floor'])}"
             for row in rows[:1]]  # fmt: skip
    return f"{'; '.join(said)}." if said else ""


def _tables(study: Results, rows: list[Row], title: str) -> list[str]:
    head = f"{title[0].upper()}{title[1:]}. " if title else ""
    if regime.is_regime(study):
        return _both_samplers(study, rows, head)
    if not study.axes:
        return [head + "Each at its own best learning rate:", _variants(rows)]
    if "learning_rate" in study.axes:
        made = [f"{head}FD-Lite0 by learning rate:", _grid(study, rows, distance)]
    else:
        made = [f"{head}FD-Lite0, learning rate:", _grid(study, rows, distance_and_rate)]
    for name in BASELINES:
        made += _ratios(f"{head}FD-Lite0", study, rows, "fd", name)
    made += _folded(f"{head}KID", study, rows, kernel_distance)
    made += _folded(f"{head}Pixel error", study, rows, pixel_error)
    if coarse_of_error(rows):
        made += _folded(f"{head}Coarse share of the error", study, rows, coarse_of_error)
        for key, part in ERRORS.items():
            made += _ratios(f"{head}{part.capitalize()} error", study, rows, key, BASELINES[0])
    return made


def _both_samplers(study: Results, rows: list[Row], head: str) -> list[str]:
    made = []
    for key, (name, _, is_open) in regime.SCORES.items():
        if not reading.measured(rows, key):
            continue
        score = partial(regime.cell, key=key)
        if is_open:
            made += [f"{head}{name}:", _grid(study, rows, score)]
        else:
            made += _folded(f"{head}{name}", study, rows, score)
        if key in regime.AGAINST:
            made += _ratios(f"{head}{name}", study, rows, key, BASELINES[0])
    return made


def _ratios(what: str, study: Results, rows: list[Row], key: str, other: str) -> list[str]:
    """A score over that of one of the methods, where there are others."""
    names = set(map(reading.name_of, rows))
    if other not in names or len(names) == 1:
        return []
    cell = _ratio(rows, study.axes, other, key)
    return _folded(f"{what} / that of {other}, paired by seed", study, rows, cell)


def _folded(summary: str, study: Results, rows: list[Row], cell: Cell) -> list[str]:
    """A table that opens on a click."""
    head = f"<details><summary>{summary}</summary>"
    return [head, _grid(study, rows, cell), "</details>"]


def _grid(study: Results, rows: list[Row], cell: Cell) -> str:
    """Rows are methods, columns what the study varies."""
    columns = reading.columns(rows, study.axes)
    lines = [[name, *(cell(found) if (found := reading.lines(group).get(name)) else ""
                      for group in columns.values())] for name in reading.lines(rows)]  # fmt: skip
    return report.table(["", *columns], lines, "")


def distance(rows: list[Row]) -> str:
    """FD with its interval, and the number of seeds that diverged, of one setting."""
    return _told(reading.distance_of(rows), rows)


def distance_and_rate(rows: list[Row]) -> str:
    return f"{distance(rows)}, at {rows[0]['learning_rate']:g}"


def kernel_distance(rows: list[Row]) -> str:
    return _told(reading.kernel_distance_of(rows), rows)


def pixel_error(rows: list[Row]) -> str:
    found = reading.pixel_error_of(rows)
    return estimate(found) if found else ""


def coarse_of_error(rows: list[Row]) -> str:
    found = reading.coarse_of_error(rows)
    return estimate(found) if found else ""


def _ratio(rows: list[Row], axes: Sequence[str], other: str, key: str = "fd") -> Cell:
    ratio = reading.ratio_to(rows, axes, other, key)

    def cell(group: list[Row]) -> str:
        if reading.name_of(group[0]) == other:
            return "1"
        found = ratio(group)
        return estimate(found) if found else ""

    return cell


def _variants(rows: list[Row]) -> str:
    """Rows are variants, in the study's order."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(reading.name_of(row), []).append(row)
    head = ["", "FD-Lite0, learning rate", "/ output KD", f"/ {DEFAULT}", "KID", "pixel error",
            "coarse share of the error", *(f"{part} error / output KD" for part in ERRORS.values()),
            "spikes", "w", "coarse, share of gradient", "fine, share of gradient"]  # fmt: skip
    against = [_ratio(rows, (), name) for name in (BASELINES[0], DEFAULT)]
    errors = [_ratio(rows, (), BASELINES[0], key) for key in ERRORS]
    return report.table(head, [
        [name, distance_and_rate(group), *(cell(group) for cell in against),
         kernel_distance(group), pixel_error(group), coarse_of_error(group),
         *(cell(group) for cell in errors),
         _number(reading.median(group, "spikes")),
         *(_number(reading.average(group, key))
           for key in ("weight", "coarse_share", "fine_share"))]
        for name, group in groups.items()
    ], "")  # fmt: skip


def _number(value: float | None) -> str:
    return "" if value is None else report.number(value)


def _told(found: Estimate | None, rows: list[Row]) -> str:
    """An estimate, and how many of the seeds it leaves out."""
    lost = reading.diverged(rows)
    if found is None:
        return f"all {len(rows)} diverged"
    return estimate(found) + (f", {lost} of {len(rows)} diverged" if lost else "")


def estimate(found: Estimate) -> str:
    """A mean and its interval, or that it is of one seed."""
    value = report.number(found.value)
    if found.low is None:
        return f"{value} (one seed)"
    return f"{value} [{report.number(found.low)}, {report.number(found.high)}]"
