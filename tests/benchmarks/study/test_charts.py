"""Points stand at their means, bars at their intervals, and lost seeds show."""

import numpy as np
import pytest
import scipy.stats
from matplotlib.figure import Figure

from benchmarks.study import charts, reading
from tests.benchmarks.study.rows_of_studies import FD_FLOOR, FD_TEACHER, row, seeds


@pytest.fixture
def axes():
    axes = Figure().subplots()
    axes.set_xscale("log")
    return axes


def heights(axes, gid):
    return [list(line.get_ydata()) for line in axes.lines if line.get_gid() == gid]


def test_points_and_bars_stand_beside_each_other(axes):
    values = (400.0, 500.0, 470.0)
    rows = []
    for method in ("LIFT", "no KD"):
        for student in ("10 %", "2 %"):
            rows += seeds("capacity", method, values, student=student)
    styles = charts.draw_points(axes, rows, "share", reading.estimate, dodge=0.1)
    assert list(styles) == ["no KD", "LIFT"]
    assert np.allclose(heights(axes, charts.VALUE), scipy.stats.gmean(values))
    logs = np.log(values)
    interval = np.exp(scipy.stats.t.interval(0.95, 2, logs.mean(), scipy.stats.sem(logs)))
    assert np.allclose(heights(axes, charts.INTERVAL), interval)
    first, second = (line.get_xdata() for line in axes.lines if line.get_gid() == charts.VALUE)
    assert list(first) == pytest.approx([0.02 * np.exp(-0.05), 0.1 * np.exp(-0.05)])
    assert np.allclose(np.divide(second, first), np.exp(0.1))


def test_lost_seeds_are_hollow_and_lost_settings_crossed(axes):
    states = {"10 %": ("ok", "ok"), "2 %": ("ok", "diverged"), "1 %": ("diverged", "not finite")}
    rows = [
        row("capacity", "LIFT", student=student, seed=seed, status=status)
        for student, of_student in states.items()
        for seed, status in enumerate(of_student)
    ]
    styles = charts.draw_points(axes, rows, "share", reading.estimate, dodge=0.0)
    hollow = [line for line in axes.lines if line.get_markerfacecolor() == "white"]
    crossed = [line for line in axes.lines if line.get_marker() == "x"]
    assert [line.get_xdata()[0] for line in hollow] == [0.02]
    assert [line.get_xdata()[0] for line in crossed] == [0.01]
    assert list(styles)[1:] == ["some seeds diverged, mean of the rest", "all seeds diverged"]


def test_one_scale_holds_values_and_references_of_all_panels():
    first, second = Figure().subplots(1, 2)
    for axes, fd in ((first, 300.0), (second, 3000.0)):
        axes.plot([1], [fd], gid=charts.VALUE)
        charts.draw_references(axes, [row("long", "LIFT")], "fd")
    charts.fit_y(first, second)
    assert first.get_ylim() == second.get_ylim() and first.get_yscale() == "log"
    low, high = first.get_ylim()
    assert low < FD_FLOOR < FD_TEACHER < 3000 < high


def test_a_wild_interval_does_not_flatten_the_values(axes):
    axes.plot([1, 2], [100.0, 400.0], gid=charts.VALUE)
    axes.plot([1, 1], [1e-3, 1e7], gid=charts.INTERVAL)
    charts.fit_y(axes)
    low, high = axes.get_ylim()
    assert 25 < low < 100 and 400 < high < 1500


def test_a_negative_floor_is_told_where_it_has_no_place(axes):
    axes.plot([1, 2], [0.5, 5.0], gid=charts.VALUE)
    charts.draw_references(axes, [row("capacity", "LIFT")], "kid")
    charts.fit_y(axes)
    (text,) = axes.texts
    assert text.get_text() == "real / real: -0.017, has no place on this axis"


def test_a_line_looks_the_same_whatever_stands_beside_it():
    names = ["no KD", "LIFT+PLACE", "LIFT+PLACE, all channels"]
    whole, without = charts.styles_of(["output KD", *names]), charts.styles_of(names)
    assert all(whole[name] == without[name] for name in names)
    assert len({style["color"] for style in whole.values()}) == 4


def test_ratios_near_one_have_several_ticks(axes):
    axes.plot([1, 2], [0.97, 1.08], gid=charts.VALUE)
    charts.ratio_axis(axes)
    low, high = axes.get_ylim()
    assert sum(low <= tick <= high for tick in axes.get_yticks()) >= 3
