"""The figures of studies: one picture or more for each, from its rows alone."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from matplotlib.axes import Axes

from benchmarks.study import reading, samples, sweeps
from benchmarks.study.charts import (
    FD,
    FLOOR,
    KID,
    REFERENCE,
    TEACHER,
    VALUE,
    Points,
    draw_points,
    draw_references,
    fit_y,
    log_x,
    styles_of,
)  # fmt: skip
from benchmarks.study.reading import Results, Row
from benchmarks.study.statistics import Estimate
from liftplace.analyze.axes import WIDTH, dress, finish, panels, set_log, short
from liftplace.evaluate.pictures import new_figure

Draw = Callable[[Path], None]
SIZE = "student's share of the teacher's parameters"


def draw(folder: Path, out: Path) -> list[Path]:
    """Draws every study whose rows `folder` holds into `out`; returns the pictures."""
    drawn = []
    for study in reading.find(folder):
        for name, write in pictures(study).items():
            out.mkdir(parents=True, exist_ok=True)
            write(out / name)
            drawn.append(out / name)
    return drawn


def pictures(study: Results) -> dict[str, Draw]:
    """What there is to draw of a study: {file name: a function that writes that file}."""
    found: dict[str, Draw] = {}
    for number, (title, rows) in enumerate(reading.parts(study), start=1):
        apart = f"_{number}" if title else ""
        for kind, write in _kinds(study, rows, title).items():
            found[f"{study.name}{kind}_{study.device}{apart}.png"] = write
    return found


def _kinds(study: Results, rows: list[Row], title: str) -> dict[str, Draw]:
    compared = reading.compared(rows, study.axis)
    kinds: dict[str, Draw] = {}
    if not any(row["status"] == "ok" for row in compared):
        return kinds
    given = {"rows": compared, "title": title}
    if study.name == "capacity":
        kinds[""] = partial(save_capacity, **given)
        if len(_ratios(compared, "share")) > 1:
            kinds["_ratio"] = partial(save_capacity_ratio, **given)
    elif study.name == "teacher_size":
        kinds[""] = partial(save_teacher_size, **given)
    elif study.name == "initialisation":
        kinds[""] = partial(save_initialisation, **given)
    elif study.name == "stability":
        kinds[""] = partial(sweeps.save_stability, **given)
        if drift := sweeps.drift(compared, study.timesteps):
            kinds["_timesteps"] = partial(sweeps.save_drift, drift, title=title)
    elif study.name == "long":
        kinds[""] = partial(sweeps.save_long, **given)
    else:
        kinds[""] = partial(save_dots, **given)
    if sheet := samples.sheet(compared, study.axis, study.samples):
        kinds["_samples"] = partial(samples.save_sheet, sheet, title=title)
    return kinds


def points(rows: list[Row], x: str, estimate: Callable[[list[Row]], Estimate | None]):
    """{name: {x: estimate}} of what has one."""
    found: dict[str, dict[float, Estimate]] = {}
    for name, of_line in reading.lines(rows).items():
        made = {place: estimate(group) for place, group in reading.by(of_line, x).items()}
        if made := {place: each for place, each in made.items() if each}:
            found[name] = made
    return found


def _ratios(rows: list[Row], x: str, other: str = "output KD") -> dict[str, Points]:
    """FD over that of `other` at the same x, paired by seed."""
    others = reading.by((row for row in rows if reading.name_of(row) == other), x)
    return points(rows, x, lambda group: reading.ratio_of(group, others.get(group[0][x], [])))


def save_capacity(path: Path, *, rows: list[Row], title: str) -> None:
    """FD and KID over the student's size."""
    figure, grid = panels(2)
    figure.set_figheight(4.6)
    styles = {}
    for axes, score, estimate, label in (
        (grid[0], "fd", reading.distance_of, FD),
        (grid[1], "kid", reading.kernel_distance_of, KID),
    ):
        _sizes(axes, rows)
        lines = points(rows, "share", estimate)
        draw_points(axes, lines, dodge=0.035)
        styles = styles_of(lines) | draw_references(axes, rows, score)
        fit_y(axes)
        dress(axes, title, SIZE, label)
    finish(figure, styles, path)


def save_capacity_ratio(path: Path, *, rows: list[Row], title: str) -> None:
    """FD relative to output KD over the student's size."""
    figure, (axes,) = panels(1)
    figure.set_figheight(4.4)
    lines = _ratios(rows, "share")
    _sizes(axes, rows)
    draw_points(axes, lines, dodge=0.025)
    axes.axhline(1, gid=REFERENCE, color="black", linewidth=1)
    axes.set_yscale("log")
    fit_y(axes)
    set_log(axes)
    dress(axes, title, SIZE, "FD-Lite0 / that of output KD, same seed")
    finish(figure, styles_of(lines), path)


def _sizes(axes: Axes, rows: list[Row]) -> None:
    names = {row["share"]: row["student"] for row in sorted(rows, key=lambda row: row["share"])}
    log_x(axes, list(names), list(names.values()))


def save_teacher_size(path: Path, *, rows: list[Row], title: str) -> None:
    """FD of one student under teachers of several sizes, and the teachers' own."""
    figure, (axes,) = panels(1)
    figure.set_figheight(4.4)
    rows = [row | {"of_teacher": row["parameters"] / row["share"]} for row in rows]
    teachers = reading.by(sorted(rows, key=lambda row: row["of_teacher"]), "teacher")
    sizes = {name: group[0]["of_teacher"] for name, group in teachers.items()}
    rows = [row | {"of_teacher": sizes[row["teacher"]]} for row in rows]  # free of rounding
    log_x(axes, list(sizes.values()), list(teachers))
    lines = points(rows, "of_teacher", reading.distance_of)
    draw_points(axes, lines, dodge=0.025)
    own = [group[0]["fd_teacher"] for group in teachers.values()]
    axes.plot(sizes.values(), own, gid=VALUE, marker="s", ms=4, **TEACHER)
    axes.axhline(rows[0]["fd_floor"], gid=REFERENCE, **FLOOR)
    fit_y(axes)
    dress(axes, title, "teacher, by its number of parameters", FD)
    own_style = {"the teacher itself": TEACHER | {"marker": "s", "ms": 4}, "real / real": FLOOR}
    finish(figure, styles_of(lines) | own_style, path)


def save_initialisation(path: Path, *, rows: list[Row], title: str) -> None:
    """FD by initialisation, a point a method."""
    figure, (axes,) = panels(1)
    figure.set_figheight(4.4)
    kinds = list(reading.by(rows, "initialisation"))
    rows = [row | {"place": kinds.index(row["initialisation"])} for row in rows]
    lines = points(rows, "place", reading.distance_of)
    draw_points(axes, lines, dodge=0.07)
    axes.set_xticks(range(len(kinds)), kinds)
    axes.set_xlim(-0.5, len(kinds) - 0.5)
    styles = styles_of(lines) | draw_references(axes, rows, "fd")
    fit_y(axes)
    dress(axes, title, "initialisation", FD)
    finish(figure, styles, path)


def save_dots(path: Path, *, rows: list[Row], title: str) -> None:
    """FD and KID of every variant, one under the other, every seed a small dot."""
    names = list(dict.fromkeys(map(reading.name_of, rows)))
    groups = [[row for row in rows if reading.name_of(row) == name] for name in names]
    figure = new_figure(WIDTH, 1.3 + 0.3 * len(names))
    grid = figure.subplots(1, 2, sharey=True)
    default = reading.default_of(rows)
    marks = {"output KD": "output KD", f"{default} (default)": default}
    styles = {label: _line_of(name) for label, name in marks.items() if name in names}
    for axes, key, estimate, label in (
        (grid[0], "fd", reading.distance_of, FD),
        (grid[1], "kid", reading.kernel_distance_of, KID),
    ):
        for place, group in enumerate(groups):
            _draw_dot(axes, place, reading.scores(group, key).values(), estimate(group))
        for name in marks.values():
            if name in names and (each := estimate(groups[names.index(name)])):
                axes.axvline(each.value, zorder=0, **_line_of(name))
        dress(axes, title, label, "")
        _fit_x(axes, [row[key] for row in rows if row["status"] == "ok"])
    grid[0].set_yticks(range(len(names)), [short(name, 40) for name in names])
    grid[0].set_ylim(len(names) - 0.5, -0.5)
    finish(figure, styles or {"mean of the seeds": _DOT}, path)


_DOT = {"color": "black", "marker": "o", "ms": 5, "linestyle": "none"}


def _line_of(name: str) -> dict:
    style = next(iter(styles_of([name]).values()))
    return {"color": style["color"], "linestyle": style["linestyle"], "linewidth": 1.4}


def _draw_dot(axes: Axes, place: int, seeds, estimate: Estimate | None) -> None:
    if estimate is None:
        axes.text(0.01, place, "all diverged", transform=axes.get_yaxis_transform(), va="center",
                  fontsize=9)  # fmt: skip
        return
    axes.plot(list(seeds), [place + 0.22] * estimate.count, "o", ms=2.5, color="#888888")
    axes.plot([estimate.value], [place], **_DOT)
    if estimate.low is not None:
        axes.plot([estimate.low, estimate.high], [place, place], color="black", linewidth=1.3)


def _fit_x(axes: Axes, values: list[float]) -> None:
    """Scales x by the seeds; an interval that reaches far beyond them is cut."""
    low, high = min(values), max(values)
    if low > 0 and high > 3 * low:
        axes.set_xlim(low / 1.5, high * 1.5)
        set_log(axes, "x")
        return
    room = (high - low) or abs(high) or 1.0
    axes.set_xlim(low - 0.5 * room, high + 0.5 * room)
