from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from liftplace.analyze import score_plots
from tests.analyze.analyses import analysis_of


@pytest.fixture
def drawn(monkeypatch):
    figures = []

    def keep(figure, styles, path):
        figures.append(figure)

    monkeypatch.setattr(score_plots, "finish", keep)
    return figures


def test_every_model_has_its_score_and_interval(drawn):
    analysis = analysis_of((0.03, 0.2))
    score_plots.save_distances(analysis, None)
    fd, kid = drawn[0].axes
    points = [line.get_xdata()[0] for line in fd.lines if len(line.get_xdata()) == 1]
    students = analysis.students
    kinds = ("plain", "trajectory", "corrected")
    of_students = [getattr(student, kind) for student in students for kind in kinds]
    expected = [analysis.teacher_samples, *of_students]
    assert points == [each.scores[0].value for each in expected]
    low, high = fd.lines[1].get_xdata()
    assert (low, high) == (
        analysis.teacher_samples.scores[0].low,
        analysis.teacher_samples.scores[0].high,
    )
    assert list(fd.lines[-1].get_xdata()) == [5, 5]
    assert fd.get_xscale() == "log" and kid.get_xscale() == "linear"  # KID can be negative
    for axes, place in ((fd, 0), (kid, 1)):
        left, right = axes.get_xlim()
        scores = [each.scores[place] for each in expected]
        assert left < min(score.low for score in scores) and left < scores[0].floor
        assert right > max(score.high for score in scores)


def test_scores_without_interval_or_floor_are_points(drawn):
    analysis = analysis_of((0.1,))
    bare = [
        replace(score, low=None, high=None, floor=None) for score in analysis.teacher_samples.scores
    ]
    samples = replace(analysis.teacher_samples, scores=tuple(bare))
    (student,) = analysis.students
    student = replace(student, plain=samples, corrected=samples, trajectory=samples)
    score_plots.save_distances(
        replace(analysis, teacher_samples=samples, students=(student,)), None
    )
    assert len(drawn[0].axes[0].lines) == 4


@pytest.mark.parametrize("shares, joined", [((0.2, 0.03), True), ((0.2, 0.03, 0.2), False)])
def test_errors_over_sizes_are_joined_only_where_sizes_differ(drawn, shares, joined):
    analysis = analysis_of(shares)
    score_plots.save_capacity(analysis, None)
    noisy, below, right = drawn[0].axes
    total = noisy.lines[0]
    assert total.get_linestyle() == ("-" if joined else "None")
    by_size = sorted(analysis.students, key=lambda each: each.parameters)
    assert list(total.get_xdata()) == sorted(100 * share for share in shares)
    for axes, which in ((noisy, slice(6, None)), (below, slice(6))):  # t > 500: six of twelve
        means = [each.errors.total[which].mean().item() for each in by_size]
        np.testing.assert_allclose(axes.lines[0].get_ydata(), means)
    numbers = [text.get_text() for text in right.texts]
    assert numbers == (["2", "1"] if joined else ["2", "1, 3"])


def test_without_samples_the_errors_stand_alone(drawn):
    score_plots.save_capacity(analysis_of((0.1, 0.2), sampled=False), None)
    assert len(drawn[0].axes) == 2
    assert not score_plots.differ_in_size(analysis_of((0.1, 0.1)).students)


def test_samples_have_a_row_a_model(tmp_path):
    heights = []
    for shares in ((0.1,), (0.1, 0.2)):
        score_plots.save_samples(analysis_of(shares), tmp_path / "samples.png")
        with Image.open(tmp_path / "samples.png") as picture:
            heights.append(picture.height)
    assert heights[1] - heights[0] == pytest.approx(3 * 0.62 * 150, abs=1)
