"""Plots of students beside their teacher: their samples, distances and sizes."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from liftplace.analyze.analysis import Analysis, Samples, StudentAnalysis
from liftplace.analyze.error_plots import PARTS
from liftplace.analyze.propagation import in_half
from liftplace.evaluate.evaluator import Score
from liftplace.plots.axes import OKABE_ITO, WIDTH, dress, finish, panels, set_log, short, suits_log
from liftplace.plots.images import new_figure, save_labelled_rows

KINDS = {  # of samples, with fixed looks in all pictures
    "plain": {"color": OKABE_ITO["vermillion"], "linestyle": "none", "marker": "o"},
    "trajectory": {"color": OKABE_ITO["blue"], "linestyle": "none", "marker": "^"},
    "corrected": {"color": OKABE_ITO["green"], "linestyle": "none", "marker": "D"},
}
KIND_NAMES = {
    "plain": "plain",
    "trajectory": "corrected, teacher's path",
    "corrected": "corrected, own samples",
}
TEACHER = {"color": OKABE_ITO["black"], "linestyle": "none", "marker": "s"}
COLUMN = 12  # characters of what stands above a column of samples
FLOOR = {"color": "#666666", "linestyle": (0, (2, 2))}


def save_samples(analysis: Analysis, path: Path) -> None:
    """A row of samples for the teacher, and for each student plain and corrected both ways."""
    rows = {f"teacher\n{_first_score(analysis.teacher_samples)}": analysis.teacher_samples.images}
    for number, student in enumerate(analysis.students, start=1):
        for kind in KINDS:
            samples = getattr(student, kind)
            name = f"{number}  {short(student.label, 24)}"
            rows[f"{name}\n{KIND_NAMES[kind]}\n{_first_score(samples)}"] = samples.images
    title = f"One column, one noise; {analysis.num_inference_steps} denoising steps"
    labels = [short(" ".join(each.split()), COLUMN) for each in analysis.sample_labels or ()]
    save_labelled_rows(rows, path, title=title, column_labels=labels or None)


def _first_score(samples: Samples) -> str:
    score = samples.scores[0]
    return f"{score.name} {score.value:.4g}"


def save_distances(analysis: Analysis, path: Path) -> None:
    """A panel a score: a point with its interval for each model, the real / real floor a line."""
    names = ["teacher", *_numbered(analysis.students)]
    figure = new_figure(WIDTH, 1.7 + 0.5 * len(names))
    scores = analysis.teacher_samples.scores
    grid = figure.subplots(1, len(scores), sharey=True, squeeze=False)[0]
    for place, (axes, score) in enumerate(zip(grid, scores, strict=True)):
        _plot_point(axes, 0, score, TEACHER)
        for number, student in enumerate(analysis.students, start=1):
            for offset, (kind, style) in zip((-0.22, 0, 0.22), KINDS.items(), strict=True):
                _plot_point(axes, number + offset, getattr(student, kind).scores[place], style)
        if score.floor is not None:
            axes.axvline(score.floor, linewidth=1.2, **FLOOR)
        ends = _ends(_scores_of(analysis, place))
        if (ends > 0).all() and ends.max() > 10 * ends.min():
            axes.set_xlim(ends.min() / 1.3, ends.max() * 1.3)
            set_log(axes, "x")
        dress(axes, score.name, f"{score.name}, {score.better} is better", "")
    grid[0].set_yticks(range(len(names)), names)
    grid[0].set_ylim(len(names) - 0.5, -0.5)
    styles = {"teacher": TEACHER} | {KIND_NAMES[kind]: style for kind, style in KINDS.items()}
    if scores[0].floor is not None:
        styles["real / real"] = FLOOR
    finish(figure, styles, path)


def _scores_of(analysis: Analysis, place: int) -> list[Score]:
    """One score of every model."""
    students = [getattr(student, kind) for student in analysis.students for kind in KINDS]
    return [samples.scores[place] for samples in (analysis.teacher_samples, *students)]


def _ends(scores: Sequence[Score]) -> np.ndarray:
    """Everything that a panel must hold: the scores, the ends of their intervals, the floor."""
    ends = [(score.value, score.low, score.high, score.floor) for score in scores]
    return np.array([end for each in ends for end in each if end is not None])


def _plot_point(axes: Axes, y: float, score: Score, style: dict) -> None:
    axes.plot([score.value], [y], ms=6, **style)
    if score.low is not None:
        axes.plot([score.low, score.high], [y, y], color=style["color"], linewidth=1.8)


def differ_in_size(students: Sequence[StudentAnalysis]) -> bool:
    return len({student.parameters for student in students}) > 1


def save_capacity(analysis: Analysis, path: Path) -> None:
    """The students' errors in both halves of the timesteps, and where there are samples their
    distances, over their sizes."""
    figure, grid = panels(3 if analysis.teacher_samples else 2)
    shares = [100 * each.parameters / analysis.teacher_parameters for each in analysis.students]
    for axes, noisier in zip(grid, (True, False), strict=False):
        for part, style in PARTS.items():
            means = [
                getattr(each.errors, part)[in_half(each.errors, analysis.noisy, noisier)]
                .mean()
                .item()
                for each in analysis.students
            ]
            _plot_over_sizes(axes, shares, means, style)
        name = f"distillation error, t {'>' if noisier else '≤'} {analysis.noisy:g}"
        dress(axes, name, _SIZE, "mean squared error")
    styles = dict(PARTS)
    if analysis.teacher_samples:
        styles |= _plot_distances(analysis, grid[2], shares)
    for axes in grid:
        _scale(axes, shares)
        _number(axes, shares)
    finish(figure, styles, path)


def _plot_distances(analysis: Analysis, axes: Axes, shares: list[float]) -> dict[str, dict]:
    """The students' first score over their sizes, and the looks of it for the legend."""
    for dodge, (kind, style) in zip((0.97, 1, 1.03), KINDS.items(), strict=True):
        scores = [getattr(each, kind).scores[0] for each in analysis.students]
        # Dodged by a few percent: all kinds are of the same size.
        dodged = [share * dodge for share in shares]
        _plot_over_sizes(axes, dodged, [score.value for score in scores], style)
        for share, score in zip(dodged, scores, strict=True):
            if score.low is not None:
                ends = [score.low, score.high]
                axes.plot([share, share], ends, color=style["color"], linewidth=1.8)
    teacher = analysis.teacher_samples.scores[0]
    line = {"color": TEACHER["color"], "linestyle": (0, (6, 2))}
    axes.axhline(teacher.value, linewidth=1.2, **line)
    dress(axes, f"{teacher.name} of samples", _SIZE, f"{teacher.name}, lower is better")
    return {KIND_NAMES[kind]: style for kind, style in KINDS.items()} | {"teacher": line}


_SIZE = "parameters, % of the teacher's"


def _plot_over_sizes(axes: Axes, shares: list[float], values: list[float], style: dict) -> None:
    """Points, joined in order of size only where no two students have one size."""
    joined = len(set(shares)) == len(shares)
    order = np.argsort(shares)
    look = style | {"linestyle": "-" if joined else "none"}
    axes.plot(np.array(shares)[order], np.array(values)[order], linewidth=1.0, ms=6, **look)


def _scale(axes: Axes, shares: list[float]) -> None:
    values = np.concatenate([np.asarray(line.get_ydata(), float) for line in axes.lines])
    if suits_log(values):
        set_log(axes)
    if suits_log(np.array(shares)):
        axes.set_xlim(min(shares) / 1.5, max(shares) * 1.5)
        set_log(axes, "x")


def _number(axes: Axes, shares: list[float]) -> None:
    """The students' numbers above the panel, those of one size beside each other."""
    axes.set_title(axes.get_title(), fontsize=10, pad=18)
    for share in sorted(set(shares)):
        numbers = [str(number) for number, each in enumerate(shares, start=1) if each == share]
        axes.axvline(share, color="#999999", linewidth=0.6, zorder=0)
        place = {"transform": axes.get_xaxis_transform(), "ha": "center", "va": "bottom"}
        axes.text(share, 1.01, ", ".join(numbers), fontsize=10, **place)


def _numbered(students: Sequence[StudentAnalysis]) -> list[str]:
    return [f"{number}  {short(each.label, 24)}" for number, each in enumerate(students, start=1)]
