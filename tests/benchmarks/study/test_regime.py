import math

import pytest
from PIL import Image

from benchmarks import report
from benchmarks.study import figures, reading, regime, tables
from tests.benchmarks.study.rows_of_studies import row, save

# (FD in the paper's sampler, FD in ours) by student and method; each seed is 10 % above the last.
SCORES = {
    ("2 % narrow", "output KD"): (900.0, 800.0),
    ("2 % narrow", "LIFT+PLACE"): (450.0, 1000.0),
    ("2 % wide", "output KD"): (150.0, 160.0),
    ("2 % wide", "LIFT+PLACE"): (180.0, 200.0),
}


@pytest.fixture
def study(tmp_path):
    rows, timesteps = [], []
    for (student, method), (leading, trailing) in SCORES.items():
        for seed in range(3):
            factor = 1.1**seed
            made = row(
                "regime", method, student=student, seed=seed, fd=trailing * factor,
                fd_leading=leading * factor, fd_teacher_leading=73.0, kid_leading=leading / 100,
                mean_error=0.5, mean_error_leading=leading / 1000, pixel_error_leading=0.4,
            )  # fmt: skip
            rows.append(made)
            timesteps += [
                {"hash": made["hash"], "step": 1000, "timestep": t, "total": total,
                 "coarse": coarse * total, "fine": (1 - coarse) * total}
                for t, total, coarse in ((62, 0.9, 0.01), (937, 0.1, leading / 1000))
            ]  # fmt: skip
    save(tmp_path, rows, timesteps)
    return reading.load(tmp_path, "regime", "cpu")


def test_the_table_has_both_samplers_and_ratios_within_each_student(study):
    text = tables._block(study.files.folder, name="regime", device="cpu")
    geometric = 1.1  # the middle of three seeds
    for leading, trailing in SCORES.values():
        assert f"{report.number(leading * geometric)} [" in text
        assert f"{report.number(trailing * geometric)} [" in text
    assert "0.5 [0.5, 0.5]" in text and "1.2 [1.2, 1.2]" in text
    assert "73 in 100 leading steps, x0 not clipped" in text
    order = [text.index(name) for name, _, is_open in regime.SCORES.values() if name in text]
    assert order == sorted(order)


def test_the_noisier_half_of_the_timesteps_is_told_apart(study):
    rows = [r for r in study.rows if r["student"] == "2 % narrow" and r["method"] == "output KD"]
    found = regime.score_of(rows, "noisy_coarse_of_error")
    assert found.value == pytest.approx(0.9)  # over all timesteps it is a tenth of that
    assert reading.coarse_of_error(rows).value == pytest.approx(0.099)
    assert math.isnan(reading._parts("noisy_", [])["noisy_coarse_error"])


def test_the_figure_has_a_line_a_student_and_method(study, tmp_path):
    drawn = figures.pictures(study)
    assert list(drawn) == ["regime_cpu.png"]
    drawn["regime_cpu.png"](tmp_path / "regime.png")
    with Image.open(tmp_path / "regime.png") as picture:
        assert picture.width > 800
    assert {regime.label(each) for each in study.rows} == {": ".join(key) for key in SCORES}


def test_a_pipe_in_a_label_does_not_end_a_cell_of_a_table():
    assert report.table(["", "|means|"], [["a", 1]], "").splitlines()[0] == r"|  | \|means\| |"
