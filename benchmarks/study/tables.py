"""The tables of a study: for each score a row a method and a column for what the study varies."""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from benchmarks.markdown import number, table
from benchmarks.study import reading
from benchmarks.study.reading import BASELINES, DEFAULT, Results, Row
from benchmarks.study.statistics import Estimate

LEADING = "100 leading steps, x0 not clipped"
TRAILING = "12 trailing steps, x0 clipped"
Cell = Callable[[list[Row]], str]


@dataclass(frozen=True)
class Score:
    """A column of the rows, and which tables show it.

    Attributes:
        is_open: whether its table is seen without a click.
        values: whether its values have a table.
        over: the methods that it is also shown relative to.
    """

    key: str
    name: str
    is_open: bool = False
    values: bool = True
    over: tuple[str, ...] = ()


_KD = BASELINES[:1]
SCORES = (
    Score("fd", "FD-Lite0", is_open=True, over=BASELINES),
    Score("kid", "KID"),
    Score("pixel_error", "Pixel error"),
    Score("coarse_of_error", "Coarse share of the error"),
    Score("coarse_error", "Coarse error", values=False, over=_KD),
    Score("fine_error", "Fine error", values=False, over=_KD),
)
BOTH_SAMPLERS = (  # of the studies of the paper's regime
    Score("fd_leading", f"FD-Lite0, {LEADING}", is_open=True, over=_KD),
    Score("fd", f"FD-Lite0, {TRAILING}", is_open=True, over=_KD),
    Score("mean_error_leading", f"Error of the samples' means, {LEADING}", is_open=True, over=_KD),
    Score("mean_error", f"Error of the samples' means, {TRAILING}"),
    Score("pixel_error_leading", f"Pixel error, {LEADING}"),
    Score("pixel_error", f"Pixel error, {TRAILING}"),
    Score("kid_leading", f"KID, {LEADING}"),
    Score("kid", f"KID, {TRAILING}"),
    Score("noisy_coarse_error", "Coarse error at the noisier half of the timesteps", over=_KD),
    Score("noisy_fine_error", "Fine error at the noisier half of the timesteps", over=_KD),
    Score("noisy_coarse_of_error", "Coarse share of the error there"),
    Score("fd_corrected_teacher", f"FD-Lite0 corrected along the teacher's path, {LEADING}"),
    Score("fd_corrected_own", f"FD-Lite0 corrected at the student's own samples, {LEADING}"),
)


def tables(study: Results) -> list[str]:
    """Paragraphs: where the rows are, then the tables; none where there is nothing to compare."""
    paragraphs = []
    for title, rows in reading.parts(study):
        head = f"{title[0].upper()}{title[1:]}. " if title else ""
        if compared := reading.compared(rows, study.axes):
            paragraphs += _of_part(study, compared, head)
    return [_origin(study), *paragraphs] if paragraphs else []


def _of_part(study: Results, rows: list[Row], head: str) -> list[str]:
    if not study.axes:
        return [f"{head}Each at its own best learning rate:", _variants(rows)]
    rate_is_chosen = not study.is_regime and "learning_rate" not in study.axes
    made = []
    for score in BOTH_SAMPLERS if study.is_regime else SCORES:
        if score.key != "fd" and not reading.measured(rows, score.key):
            continue
        name, cell = head + score.name, partial(score_cell, key=score.key)
        if score.is_open and rate_is_chosen:
            made += [f"{name}, learning rate:", _grid(study, rows, score_and_rate)]
        elif score.is_open:
            made += [f"{name}:", _grid(study, rows, cell)]
        elif score.values:
            made += _folded(name, study, rows, cell)
        for other in score.over:
            names = {reading.name_of(row) for row in rows}
            if other in names and len(names) > 1:
                cell = _ratio_cell(rows, study.axes, other, score.key)
                made += _folded(f"{name} / that of {other}, paired by seed", study, rows, cell)
    return made


def _origin(study: Results) -> str:
    """Where the numbers are, and how many cells stand behind them."""
    cells = reading.by_all(study.rows, ("phase", "hash"))
    confirmed = [rows[-1] for (phase, _), rows in cells.items() if phase == "confirm"]
    seeds = len({row["seed"] for row in confirmed})
    name = study.files.rows_path.name
    lost, others = reading.diverged(confirmed), len(cells) - len(confirmed)
    students = f"{len(confirmed)} students of {seeds} seeds, {lost} of them diverged"
    return (
        f"Rows: [{name}](../../../benchmarks/results/{name}); {students}, and {others} that only "
        f"chose learning rates. {_references(study)}"
    )


def _references(study: Results) -> str:
    """What the teachers and real images score."""
    rows = [row for row in study.rows if row["status"] == "ok"]
    students = reading.short_labels("student", reading.by(rows, "student"))
    scored: dict[tuple[str, str], Row] = {}  # by their texts, because machines round differently
    for row in rows:
        fd, kid = (number(row[f"{score}_teacher"]) for score in ("fd", "kid"))
        leading = row["fd_teacher_leading"]
        more = "" if math.isnan(leading) else f", {number(leading)} in {LEADING}"
        scored.setdefault((row["teacher"], f"FD-Lite0 {fd}, KID {kid}{more}"), row)
    often = Counter(teacher for teacher, _ in scored)
    made = []
    for (teacher, scores), row in scored.items():
        name = teacher if often[teacher] == 1 else f"{teacher}, {students[row['student']]}"
        made.append(f"Teacher of {name}: {scores}")
    for row in rows[:1]:
        made.append(f"real / real: {number(row['fd_floor'])} and {number(row['kid_floor'])}")
    return f"{'; '.join(made)}."


def _folded(summary: str, study: Results, rows: list[Row], cell: Cell) -> list[str]:
    """A table that opens on a click."""
    head = f"<details><summary>{summary}</summary>"
    return [head, _grid(study, rows, cell), "</details>"]


def _grid(study: Results, rows: list[Row], cell: Cell) -> str:
    """Rows are methods, columns what the study varies."""
    columns = reading.columns(rows, study.axes)
    by_name = [reading.lines(of_column) for of_column in columns.values()]
    names = reading.lines(rows)
    lines = [[name, *(cell(of[name]) if name in of else "" for of in by_name)] for name in names]
    return table(["", *columns], lines)


def score_cell(rows: list[Row], key: str = "fd") -> str:
    """A score of one setting with its interval, and the number of seeds that diverged."""
    score, lost = reading.estimate(rows, key), reading.diverged(rows)
    if lost == len(rows):
        return f"all {lost} diverged"
    text = estimate_text(score) if score else ""
    return text + (f", {lost} of {len(rows)} diverged" if lost else "")


def score_and_rate(rows: list[Row]) -> str:
    return f"{score_cell(rows)}, at {rows[0]['learning_rate']:g}"


def _ratio_cell(rows: list[Row], axes: Sequence[str], other: str, key: str = "fd") -> Cell:
    ratio = reading.ratio_to(rows, axes, other, key)

    def cell(group: list[Row]) -> str:
        if reading.name_of(group[0]) == other:
            return "1"
        value = ratio(group)
        return estimate_text(value) if value else ""

    return cell


def _variants(rows: list[Row]) -> str:
    """Rows are variants, in the study's order; columns are scores."""
    ratio = partial(_ratio_cell, rows, ())
    cells: dict[str, Cell] = {
        "FD-Lite0, learning rate": score_and_rate,
        "/ output KD": ratio("output KD"),
        f"/ {DEFAULT}": ratio(DEFAULT),
        "KID": partial(score_cell, key="kid"),
        "pixel error": partial(_mean, key="pixel_error"),
        "coarse share of the error": partial(_mean, key="coarse_of_error"),
        "coarse error / output KD": ratio("output KD", "coarse_error"),
        "fine error / output KD": ratio("output KD", "fine_error"),
        "spikes": lambda group: _number(reading.median(group, "spikes")),
        "w": partial(_mean, key="weight", interval=False),
        "coarse, share of gradient": partial(_mean, key="coarse_share", interval=False),
        "fine, share of gradient": partial(_mean, key="fine_share", interval=False),
    }
    groups = reading.grouped(rows, reading.name_of)
    lines = [[name, *(cell(group) for cell in cells.values())] for name, group in groups.items()]
    return table(["", *cells], lines)


def _mean(rows: list[Row], key: str, interval: bool = True) -> str:
    score = reading.estimate(rows, key)
    return "" if score is None else estimate_text(score) if interval else number(score.value)


def _number(value: float | None) -> str:
    return "" if value is None else number(value)


def estimate_text(score: Estimate) -> str:
    """A mean and its interval, or that it is of one seed."""
    if score.low is None:
        return f"{number(score.value)} (one seed)"
    return f"{number(score.value)} [{number(score.low)}, {number(score.high)}]"
