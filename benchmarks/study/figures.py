"""The figures of studies: one picture or more for each, from its rows alone."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType

from matplotlib.axes import Axes

from benchmarks.study import charts, reading, samples, sweeps
from benchmarks.study.reading import Results, Row
from benchmarks.study.statistics import Estimate
from benchmarks.study.tables import BOTH_SAMPLERS
from liftplace.plots.axes import WIDTH, dress, finish, set_log, short
from liftplace.plots.images import new_figure

Draw = Callable[[Path], None]
PANELS = {  # of a study: what its panels and their x axes are
    "initialisation": ("student", "initialisation"),
    "normalisation": ("teacher", "student"),
    "sampler": ("teacher", "student"),
    "teacher_size": ("student", "teacher"),
}
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
    compared = reading.compared(rows, study.axes)
    kinds: dict[str, Draw] = {}
    if not any(row["status"] == "ok" for row in compared):
        return kinds
    seeds = reading.seeds_of(compared, study.axes)
    head = f"{title}; {seeds}" if title else seeds
    drawn = "" if seeds == "1 seed" else ": mean and 95 % interval"
    draw = {"rows": compared, "title": head + drawn}
    if study.kind == "capacity":
        kinds[""] = partial(sweeps.save_with_ratio, **draw, x="share", label=SIZE)
    elif study.kind == "long":
        kinds[""] = partial(sweeps.save_with_ratio, **draw, x="step", label="training steps")
    elif study.kind in PANELS:
        across, along = PANELS[study.kind]
        kinds[""] = partial(save_panels, **draw, across=across, along=along)
    elif study.kind == "stability":
        kinds[""] = partial(sweeps.save_stability, rows=compared, title=head)
        if drift := sweeps.drift(compared, study.timesteps):
            kinds["_timesteps"] = partial(sweeps.save_drift, drift)
    elif study.is_regime:
        panels = {each.key: each.name.replace(", ", ",\n", 1) for each in BOTH_SAMPLERS[:2]}
        kinds[""] = partial(save_dots, **draw, panels=panels, label=student_and_name)
    else:
        kinds[""] = partial(save_dots, **draw)
    if strips := samples.shown(compared, study.axes, study.files):
        kinds["_samples"] = partial(samples.save, strips, title=title)
    return kinds


def save_panels(path: Path, *, rows: list[Row], title: str, across: str, along: str) -> None:
    """FD over one label, a point a method, a panel a value of another label, all with one scale."""
    groups = reading.by(rows, across)
    heads = reading.short_labels(across, groups)
    marks = reading.short_labels(along, reading.by(rows, along))
    places = {value: place for place, value in enumerate(marks)}
    figure = new_figure(WIDTH, 4.6)
    grid = figure.subplots(1, len(groups), sharey=True, squeeze=False)[0]
    styles = {}
    for axes, (value, group) in zip(grid, groups.items(), strict=True):
        placed = [row | {"place": places[row[along]]} for row in group]
        styles |= charts.draw_points(axes, placed, "place", reading.estimate, dodge=0.09)
        axes.set_xticks(range(len(marks)), list(marks.values()))
        axes.set_xlim(-0.5, len(marks) - 0.5)
        for mark, at in reading.by(group, along).items():
            reach = (places[mark] / len(marks), (places[mark] + 1) / len(marks))
            references = charts.draw_references(axes, at, "fd", reach)
        dress(axes, f"{across} {heads[value]}", along, charts.FD)
        axes.label_outer()
    charts.fit_y(*grid, logarithmic=True)
    figure.supxlabel(title, fontsize=9)
    finish(figure, styles | references, path)


def student_and_name(row: Row) -> str:
    return f"{row['student']}: {reading.name_of(row)}"


def save_dots(
    path: Path,
    *,
    rows: list[Row],
    title: str,
    panels: Mapping[str, str] = MappingProxyType({"fd": charts.FD, "kid": charts.KID}),
    label: Callable[[Row], str] = reading.name_of,
) -> None:
    """Two scores of every variant, one under the other, every seed a small dot.

    Args:
        panels: what each score is called, by its column.
        label: of a row's variant.
    """
    names = list(dict.fromkeys(map(label, rows)))
    groups = [[row for row in rows if label(row) == name] for name in names]
    figure = new_figure(WIDTH, 1.3 + 0.3 * len(names))
    grid = figure.subplots(1, 2, sharey=True)
    marks = [name for name in ("output KD", reading.DEFAULT) if name in names]
    for axes, (key, called) in zip(grid, panels.items(), strict=True):
        estimate = partial(reading.estimate, key=key)
        for place, group in enumerate(groups):
            _draw_dot(axes, place, reading.measured(group, key).values(), estimate(group))
            if lost := reading.diverged(group):
                text, at_right = f"{lost} of {len(group)} diverged", axes.get_yaxis_transform()
                axes.text(
                    0.99, place, text, ha="right", va="center", transform=at_right, fontsize=9
                )
        for name in marks:
            if each := estimate(groups[names.index(name)]):
                axes.axvline(each.value, zorder=0, **_line_of(name))
        dress(axes, "", called, "")
        _fit_x(axes, [row[key] for row in rows if row["status"] == "ok"])
    grid[0].set_title(title, fontsize=10)
    grid[0].set_yticks(range(len(names)), [short(name, 40) for name in names])
    grid[0].set_ylim(len(names) - 0.5, -0.5)
    finish(figure, {name: _line_of(name) for name in marks} | {"mean over seeds": _DOT}, path)


_DOT = {"color": "black", "marker": "o", "ms": 5, "linestyle": "none"}


def _line_of(name: str) -> dict:
    style = next(iter(charts.styles_of([name]).values()))
    return {"color": style["color"], "linestyle": style["linestyle"], "linewidth": 1.4}


def _draw_dot(axes: Axes, place: int, seeds, estimate: Estimate | None) -> None:
    if estimate is None:
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
