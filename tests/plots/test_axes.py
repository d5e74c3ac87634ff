import numpy as np
import pytest

from liftplace.plots.axes import LABEL, finish, panels, set_log, short, style_of, suits_log
from liftplace.plots.images import new_figure


def test_logarithms_only_where_they_help():
    assert suits_log(np.array([1, 10, 0.1]))
    assert suits_log(np.array([0, 1, 10]))  # a student that starts as its teacher
    for values in ([1, 2], [-1, 1, 10], [0, 0, 0], [0, 0, 0, 1, 10], [5], []):
        assert not suits_log(np.array(values)), values


@pytest.mark.parametrize("which", ["x", "y"])
@pytest.mark.parametrize("decades", [0.6, 2, 9])
def test_either_axis_can_be_logarithmic(which, decades):
    axes = new_figure(4, 3).subplots()
    values, others = 10 ** np.linspace(0, decades, 5), np.arange(5)
    axes.plot(*((values, others) if which == "x" else (others, values)))
    set_log(axes, which)
    ticks, (low, high) = (
        (axes.get_xticks(), axes.get_xlim())
        if which == "x"
        else (axes.get_yticks(), axes.get_ylim())
    )
    assert (axes.get_xscale(), axes.get_yscale()) == (
        ("log", "linear") if which == "x" else ("linear", "log")
    )
    assert 2 <= sum(low <= tick <= high for tick in ticks) <= 10


def test_no_two_of_28_runs_look_the_same():
    styles = {tuple(style_of(number).values()) for number in range(28)}
    assert len(styles) == 28


def test_labels_stay_short():
    assert short("run") == "run"
    assert len(short("x" * 100)) <= LABEL and "…" in short("x" * 100)
    assert short("abcdefghij", 7) == "ab … ij"


@pytest.mark.parametrize("count, widths", [(1, [1]), (2, [0.5, 0.5]), (3, [0.5, 0.5, 1])])
def test_the_last_panel_alone_has_its_row(count, widths):
    figure, grid = panels(count)
    whole = grid[-1].get_subplotspec().get_gridspec().ncols
    spans = [len(axes.get_subplotspec().colspan) / whole for axes in grid]
    assert spans == widths


def test_a_long_legend_does_not_cover_the_panels(tmp_path):
    figure, (axes,) = panels(1)
    finish(
        figure,
        {f"a rather long name, number {n}": style_of(n) for n in range(12)},
        tmp_path / "a.png",
    )
    legend = figure.legends[0].get_window_extent()
    assert legend.y0 > axes.get_window_extent().y1 and legend.x0 > 0
    assert (tmp_path / "a.png").is_file()
