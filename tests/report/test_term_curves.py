import numpy as np
import pytest

from liftplace.report import term_curves
from liftplace.report.curves import panels_of
from liftplace.report.report import summary
from liftplace.report.runs import read_runs
from tests.report.run_folders import write_metrics


@pytest.fixture
def runs(tmp_path):
    for name, size in (("a", 1.0), ("b", 100.0)):
        write_metrics(
            tmp_path / name,
            [
                {
                    "step": step,
                    "loss": size / step,
                    "weighted/task": 0.7 * size / step,
                    "weighted/fine": 0.3 * size / step,
                    "gradient_share/task": 1.25,
                    "gradient_share/fine": -0.25,
                    "gradient_norm": 1.0,
                    "evaluation/FD-Lite0": abs(step - 3) + size,
                    "evaluation/precision": step / 10,
                }
                for step in range(1, 6)
            ],
        )
    write_metrics(tmp_path / "c", [{"step": 1, "loss": 1.0}])
    return read_runs(tuple(str(tmp_path / name) for name in "abc"))


@pytest.fixture
def drawn(monkeypatch):
    figures = []

    def keep(figure, styles, path):
        figures.append((figure, styles))

    monkeypatch.setattr(term_curves, "finish", keep)
    return figures


def test_terms_have_a_panel_a_run_on_one_scale(runs, drawn):
    families = term_curves.families_of(runs)
    assert list(families) == ["weighted", "shares"]  # gradient_norm alone is of no term
    term_curves.save_terms(runs, families["weighted"], None)
    figure, styles = drawn[0]
    assert len(figure.axes) == 2 and list(styles) == ["fine", "task"]
    assert figure.axes[0].get_ylim() == figure.axes[1].get_ylim()
    assert figure.axes[0].get_yscale() == "log"
    np.testing.assert_allclose(figure.axes[1].lines[0].get_ydata(), 70 / np.arange(1, 6))


def test_shares_are_linear_with_0_and_1_marked(runs, drawn):
    term_curves.save_terms(runs, term_curves.FAMILIES["shares"], None)
    axes = drawn[0][0].axes[0]
    assert axes.get_yscale() == "linear"
    assert [list(line.get_ydata()) for line in axes.lines[-2:]] == [[0, 0], [1, 1]]
    low, high = axes.get_ylim()
    assert low < -0.25 and high > 1.25


def test_terms_are_in_no_other_picture_and_scores_in_their_own(runs):
    panels = panels_of(runs)
    assert list(panels["scores"]) == ["evaluation/FD-Lite0", "evaluation/precision"]
    assert [panel.better for panel in panels["scores"].values()] == ["lower", "higher"]
    assert [panel.logarithmic for panel in panels["scores"].values()] == [True, False]
    rest = [name for key, each in panels.items() if key != "scores" for name in each]
    assert rest == ["loss", "gradient_norm"]


def test_summary_has_the_best_score_and_its_step(runs):
    header, a, _, c = summary(runs)
    assert header[3:] == ["best FD-Lite0", "best precision", "loss", "gradient_norm"]
    assert a[3:5] == ["1 at\u00a0step\u00a03", "0.5 at\u00a0step\u00a05"] and c[3:5] == ["–", "–"]
