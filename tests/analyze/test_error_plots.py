from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from liftplace.analyze import error_plots
from tests.analyze.analyses import analysis_of


@pytest.fixture
def drawn(monkeypatch):
    """The figures that are drawn, kept from being written."""
    figures = []

    def keep(figure, styles, path):
        figures.append(figure)

    monkeypatch.setattr(error_plots, "finish", keep)
    return figures


def test_errors_of_all_students_are_on_one_scale(drawn):
    students = analysis_of((0.01, 0.9)).students
    error_plots.save_errors(students, 500, None)
    left, right = drawn[0].axes[0::2], drawn[0].axes[1::2]
    assert len(left) == 2 and left[0].get_ylim() == left[1].get_ylim()
    assert right[0].get_ylim() == right[1].get_ylim() and left[0].get_yscale() == "log"
    total, coarse, fine = (line.get_ydata() for line in left[1].lines)
    np.testing.assert_allclose(total, coarse + fine)
    np.testing.assert_array_equal(total, students[1].errors.total.numpy())
    np.testing.assert_allclose(right[1].lines[0].get_ydata(), 100 * total / 0.97)
    grey = left[0].patches[0].get_extents().transformed(left[0].transData.inverted())
    assert grey.x0 == pytest.approx(500) and grey.x1 > 975


def test_what_is_carried_is_drawn_as_a_root_of_each_step(drawn):
    students = analysis_of((0.1, 0.2)).students
    error_plots.save_propagated(students, 500, None)
    one, two = drawn[0].axes
    assert one.get_ylim() == two.get_ylim() and one.get_yscale() == "log"
    carried = students[1].carried
    total, coarse, fine = (line.get_ydata() for line in two.lines)
    np.testing.assert_allclose(coarse, carried.coarse.sqrt())
    np.testing.assert_allclose(total**2, coarse**2 + fine**2)
    assert list(two.lines[0].get_xdata()) == carried.timesteps.tolist()


def test_shares_explained_are_of_the_error_of_each_timestep(drawn):
    (student,) = analysis_of((0.1,)).students
    errors = replace(
        student.errors, total=student.errors.total.clone().index_fill(0, torch.tensor([3]), 0)
    )
    error_plots.save_explained([replace(student, errors=errors)], None)
    (axes,) = drawn[0].axes
    lift, small, large = (line.get_ydata() for line in axes.lines)
    assert np.isnan(lift[3]) and axes.get_ylim() == (-2, 102)
    expected = 100 * (1 - errors.place_fine[1, 5] / errors.total[5])
    assert large[5] == pytest.approx(expected.item()) and (small[:3] > large[:3]).all()


def test_weights_are_drawn_as_they_are(drawn):
    students = analysis_of((0.1, 0.2, 0.3)).students
    error_plots.save_weights(students, None)
    assert len(drawn[0].axes) == 3
    lines = drawn[0].axes[2].lines
    np.testing.assert_array_equal(lines[0].get_ydata(), students[2].errors.lift_weight)
    np.testing.assert_array_equal(lines[2].get_ydata(), students[2].errors.weight[1])


@pytest.mark.parametrize("channels, bands", [(1, 1), (4, 4), (16, 0)])
def test_slopes_have_a_line_a_channel_and_bands_while_they_are_few(drawn, channels, bands):
    students = analysis_of((0.1, 0.2), channels=channels).students
    error_plots.save_slopes(students, None)
    slope, intercept = drawn[0].axes[2:]
    assert len(slope.lines) == len(intercept.lines) == channels + 1
    assert len(slope.collections) == bands
    assert list(slope.lines[0].get_ydata()) == [1, 1]
    assert list(intercept.lines[0].get_ydata()) == [0, 0]
    medians = students[1].errors.slope[:, channels - 1, 1]
    np.testing.assert_array_equal(slope.lines[-1].get_ydata(), medians)
    assert slope.get_ylim() == drawn[0].axes[0].get_ylim()


def test_an_outlier_does_not_squeeze_the_slopes(drawn):
    (student,) = analysis_of((0.1,), steps=40).students
    slope = student.errors.slope.clone()
    slope[7, 0, 2] = 1e6
    errors = replace(student.errors, slope=slope)
    error_plots.save_slopes([replace(student, errors=errors)], None)
    assert drawn[0].axes[0].get_ylim()[1] < 10


def test_pictures_are_900_pixels_wide_on_a_page(tmp_path):
    for shares in ((0.1,), (0.1, 0.2, 0.3)):
        students = analysis_of(shares, channels=16).students
        for name in ("errors", "propagated", "slopes", "weights"):
            noisy = (500,) if name in ("errors", "propagated") else ()
            getattr(error_plots, f"save_{name}")(students, *noisy, tmp_path / "a.png")
            with Image.open(tmp_path / "a.png") as picture:
                assert picture.width == 1350
