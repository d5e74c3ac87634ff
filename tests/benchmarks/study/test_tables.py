"""Tables of studies hold what the rows say."""

import numpy as np
import pytest
import scipy.stats

from benchmarks.markdown import number
from benchmarks.study import reading
from benchmarks.study.tables import BOTH_SAMPLERS, tables
from tests.benchmarks.study.rows_of_studies import by_timestep, row, save, seeds

OUTPUT, PLACE = (400.0, 500.0, 450.0), (300.0, 410.0, 345.0)


def text_of(folder, name="capacity"):
    return "\n".join(tables(reading.load(folder, name, "cpu")))


def capacity(folder):
    """Two methods, two sizes; at 1 % one seed of LIFT+PLACE diverged and all of output KD's."""
    rows = []
    for method, values in (("output KD", OUTPUT), ("LIFT+PLACE", PLACE)):
        for rate in (1e-3, 3e-3):
            search = {"seed": 1000, "phase": "search", "rate": rate}
            rows.append(row("capacity", method, fd=100 / rate, **search))
        rows += seeds("capacity", method, values)
    at_1 = {"student": "1 %", "fd": 900.0}
    for seed, status in enumerate(("diverged", "ok", "ok")):
        rows.append(row("capacity", "output KD", seed=seed, status="not finite", **at_1))
        rows.append(row("capacity", "LIFT+PLACE", seed=seed, status=status, **at_1))
    save(folder, rows)
    return text_of(folder)


def cells(text, name):
    """The cells after `name` of every table in the text."""
    lines = (line.strip("| ").split(" | ") for line in text.splitlines())
    return [line[1:] for line in lines if line[0] == name]


def interval(values):
    low, high = scipy.stats.t.interval(0.95, 2, np.mean(values), scipy.stats.sem(values))
    return f"[{number(low)}, {number(high)}]"


def test_distances_ratios_and_kid_stand_with_intervals_rates_and_losses(tmp_path):
    text = capacity(tmp_path)
    distance, ratio, kid, pixels = cells(text, "LIFT+PLACE")
    logs = np.log(PLACE)
    low, high = np.exp(scipy.stats.t.interval(0.95, 2, logs.mean(), scipy.stats.sem(logs)))
    assert distance[0] == f"{number(scipy.stats.gmean(PLACE))} [{low:.0f}, {high:.0f}], at 0.003"
    assert distance[1] == "900 [900, 900], 1 of 3 diverged, at 0.003"
    factor = scipy.stats.gmean(np.divide(PLACE, OUTPUT))
    assert ratio[0].startswith(f"{factor:.3g} [") and len(ratio) == 1  # at 1 % there is none
    assert kid[0] == f"{np.mean(PLACE) / 100:.3g} {interval(np.divide(PLACE, 100))}"
    assert pixels[0] == "0.3 [0.3, 0.3]"
    assert cells(text, "output KD")[0][1] == "all 3 diverged, at 0.003"


def test_the_first_paragraph_names_the_rows_and_what_stands_behind_them(tmp_path):
    first = capacity(tmp_path).splitlines()[0]
    assert "(../../../benchmarks/results/study_capacity_cpu.csv)" in first
    assert "12 students of 3 seeds, 4 of them diverged, and 4 that only chose" in first
    assert "Teacher of 1 M: FD-Lite0 74, KID 0.26; real / real: 19 and -0.017." in first
    students = {"2 %, 6 steps": 80.0, "2 %, 12 steps": 74.0}
    save(tmp_path, [row("sampler", "LIFT", student=s, fd_teacher=fd) for s, fd in students.items()])
    text = text_of(tmp_path, "sampler")
    assert "1 M, 6 steps: FD-Lite0 80, KID 0.26; Teacher of 1 M, 12 steps: FD-Lite0 74" in text


def test_a_teacher_scored_on_two_machines_is_named_once(tmp_path):
    machines = enumerate((74.214, 74.222))
    save(tmp_path, [row("capacity", "LIFT", seed=seed, fd_teacher=fd) for seed, fd in machines])
    text = text_of(tmp_path)
    assert text.count("Teacher of") == 1 and "Teacher of 1 M: FD-Lite0 74.2, KID 0.26" in text


def test_the_parts_of_the_error_are_of_all_timesteps(tmp_path):
    rows, lines = [], []
    for method, times in (("output KD", 1), ("LIFT", 2)):
        for seed, coarse in enumerate((0.1, 0.2)):
            rows.append(row("capacity", method, seed=seed))
            totals = (
                {"timestep": t, "total": times * total} for t, total in ((10, 0.5), (900, 1.5))
            )
            lines += by_timestep(rows[-1], *({"coarse": times * coarse} | each for each in totals))
    save(tmp_path, rows, lines)
    share, coarse, fine = cells(text_of(tmp_path), "LIFT")[-3:]
    assert share[0].startswith("0.15 [") and coarse == fine == ["2 [2, 2]"]
    save(tmp_path / "without", rows)
    assert "Coarse share" not in text_of(tmp_path / "without")


def test_ablation_rows_keep_the_order_of_the_study_and_hold_against_both(tmp_path):
    variants = {
        "output KD": {"fd": 400.0},
        "LIFT+PLACE": {"fd": 500.0, "weight": 0.9},
        "w = 1": {"fd": 600.0, "weight": 1, "coarse_share": 0.25, "fine_share": 0.5},
        "lost": {"status": "not finite", "spikes": ""},
    }
    rows = [
        row("ablation", "LIFT+PLACE", variant=variant, seed=seed, **columns)
        for variant, columns in variants.items()
        for seed in range(3)
    ]
    save(tmp_path, rows)
    text = text_of(tmp_path, "ablation")
    names = [line.split(" | ")[0].strip("| ") for line in text.splitlines() if "[" in line[1:]]
    assert names[-3:] == ["output KD", "LIFT+PLACE", "w = 1"]
    assert cells(text, "lost") == [["all 3 diverged, at 0.003", "", "", "all 3 diverged"]]
    ((distance, output, default, kid, pixels, *errors, spikes, w, coarse, fine),) = cells(
        text, "w = 1"
    )
    assert distance == "600 [600, 600], at 0.003" and kid == "6 [6, 6]"
    assert errors == ["", "", ""] and spikes == "0" and pixels == "0.3 [0.3, 0.3]"
    assert output == "1.5 [1.5, 1.5]" and default == "1.2 [1.2, 1.2]"
    assert (w, coarse, fine) == ("1", "0.25", "0.5")


def test_a_search_alone_is_no_result(tmp_path):
    save(tmp_path, [row("capacity", "LIFT", seed=1000, phase="search")])
    assert text_of(tmp_path) == ""


# (FD in the paper's sampler, FD in ours) by student and method; each seed is 10 % above the last.
REGIME = {
    ("2 % narrow", "output KD"): (900.0, 800.0),
    ("2 % narrow", "LIFT+PLACE"): (450.0, 1000.0),
    ("2 % wide", "output KD"): (150.0, 160.0),
    ("2 % wide", "LIFT+PLACE"): (180.0, 200.0),
}


@pytest.fixture
def regime(tmp_path):
    rows, lines = [], []
    for (student, method), (leading, trailing) in REGIME.items():
        for seed, factor in enumerate((1, 1.1, 1.21)):
            scores = {"fd": trailing * factor, "fd_leading": leading * factor}
            scores |= {"fd_teacher_leading": 73.0, "mean_error_leading": leading / 1000}
            rows.append(row("regime", method, student=student, seed=seed, **scores))
            quiet = {"timestep": 62, "total": 0.9, "coarse": 0.009}
            noisy = {"timestep": 937, "total": 0.1, "coarse": leading / 10_000}
            lines += by_timestep(rows[-1], quiet, noisy)
    save(tmp_path, rows, lines)
    return reading.load(tmp_path, "regime", "cpu")


def test_the_tables_have_both_samplers_and_ratios_within_each_student(regime):
    text = "\n".join(tables(regime))
    for score in (score for pair in REGIME.values() for score in pair):
        assert f"{number(score * 1.1)} [" in text  # the middle of three seeds
    assert "0.5 [0.5, 0.5]" in text and "1.2 [1.2, 1.2]" in text
    assert "73 in 100 leading steps, x0 not clipped" in text
    order = [text.index(each.name) for each in BOTH_SAMPLERS if each.name in text]
    assert len(order) > 5 and order == sorted(order)


def test_the_noisier_half_of_the_timesteps_is_told_apart(regime):
    rows = [r for r in regime.rows if (r["student"], r["method"]) == ("2 % narrow", "output KD")]
    assert reading.estimate(rows, "noisy_coarse_of_error").value == pytest.approx(0.9)
    assert reading.estimate(rows, "coarse_of_error").value == pytest.approx(0.099)
    assert reading.estimate(rows, "quiet_error").value == pytest.approx(0.9)
