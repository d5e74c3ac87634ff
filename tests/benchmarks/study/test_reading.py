"""Which rows a figure compares, and under which names."""

import math
from itertools import product

import pytest

from benchmarks.study import reading
from tests.benchmarks.study.rows_of_studies import row, save, seeds


def load(folder, rows):
    save(folder, rows)
    (study,) = reading.find(folder)
    return study


def test_numbers_are_numbers_and_gaps_are_not(tmp_path):
    study = load(tmp_path, [row("capacity", "no KD", fd=512.5, seed=3, student="10 %")])
    (read,) = study.rows
    assert (study.name, study.device, study.axes) == ("capacity", "cpu", ("student",))
    assert (read["fd"], read["seed"], read["share"], read["method"]) == (512.5, 3, 0.1, "no KD")
    assert math.isnan(read["weight"])


def test_find_passes_by_timesteps_and_empty_files(tmp_path):
    save(tmp_path, [row("long", "no KD")], [])
    assert (tmp_path / "study_long_cpu_timesteps.csv").exists()
    (tmp_path / "study_capacity_cuda.csv").write_text("study,phase\n")
    assert [study.name for study in reading.find(tmp_path)] == ["long"]


def test_the_search_chooses_the_learning_rate_whatever_the_seeds_say(tmp_path):
    rows = []
    for rate, fd, status in ((1e-3, 700, "ok"), (3e-3, 500, "ok"), (1e-2, 1, "diverged")):
        search = {"seed": 1000, "phase": "search", "status": status}
        rows.append(row("capacity", "LIFT", rate=rate, fd=fd, **search))
        rows += seeds("capacity", "LIFT", [900] * 3 if rate == 3e-3 else [100] * 4, rate=rate)
    study = load(tmp_path, rows)
    found = reading.compared(study.rows, study.axes)
    assert [each["seed"] for each in found] == [0, 1, 2]
    assert {each["learning_rate"] for each in found} == {3e-3}


def test_without_a_search_most_seeds_then_fewest_lost_then_distance_choose(tmp_path):
    def at(rate, count, fd, lost=0):
        states = ["diverged"] * lost + ["ok"] * (count - lost)
        columns = {"rate": rate, "fd": fd}
        return [
            row("ablation", "LIFT", seed=seed, status=status, **columns)
            for seed, status in enumerate(states)
        ]

    lucky, broken = at(1e-4, 1, 10), at(1e-1, 3, 20, lost=1)
    good, poor = at(1e-3, 3, 300), at(1e-2, 3, 400)
    study = load(tmp_path, [*lucky, *broken, *poor, *good])
    assert {each["learning_rate"] for each in reading.compared(study.rows, ())} == {1e-3}
    study = load(tmp_path / "other", [*lucky, *broken])
    assert {each["learning_rate"] for each in reading.compared(study.rows, ())} == {1e-1}


def test_each_step_has_its_own_rate_and_elsewhere_the_last_step_counts(tmp_path):
    scores = {(1e-2, 100): 5.0, (1e-2, 900): 9.0, (1e-3, 100): 8.0, (1e-3, 900): 6.0}
    rows = [row("long", "LIFT", rate=r, step=step, fd=fd) for (r, step), fd in scores.items()]
    study = load(tmp_path, rows)
    by_step = reading.compared(study.rows, ("step",))
    assert {each["step"]: each["learning_rate"] for each in by_step} == {100: 1e-2, 900: 1e-3}
    (last,) = reading.compared(study.rows, ())
    assert (last["step"], last["learning_rate"]) == (900, 1e-3)


def test_a_sweep_keeps_every_learning_rate(tmp_path):
    study = load(tmp_path, [row("stability", "LIFT", rate=rate) for rate in (1e-3, 1e-2)])
    assert len(reading.compared(study.rows, study.axes)) == 2


def test_rows_of_two_students_are_apart_unless_the_student_is_an_axis(tmp_path):
    rows = [row("ablation", "LIFT", student=student) for student in ("2 %", "10 %")]
    titles = [title for title, _ in reading.parts(load(tmp_path, rows))]
    assert titles == ["student 2 %", "student 10 %"]
    ((title, together),) = reading.parts(
        load(tmp_path / "other", [each | {"study": "capacity"} for each in rows])
    )
    assert title == "" and len(together) == 2


def test_lines_stand_in_the_usual_order_and_variants_after_them():
    labels = (("LIFT+PLACE", "w = 1"), ("LIFT+PLACE", ""), ("LIFT", "l2"), ("no KD", ""))
    rows = [row("ablation", method, variant=variant) for method, variant in labels]
    assert list(reading.lines(rows)) == ["no KD", "LIFT+PLACE", "w = 1", "LIFT, l2"]


def test_diverged_seeds_are_counted_and_left_out_of_the_mean():
    rows = seeds("capacity", "LIFT", (4.0, 9.0, 1e6, math.nan))
    rows[2]["status"], rows[3]["status"] = "diverged", "not finite"
    assert reading.diverged(rows) == 2
    assert reading.estimate(rows).value == pytest.approx(6.0)  # geometric
    assert reading.estimate(rows, "kid").value == pytest.approx(0.065)


def test_the_ratio_is_to_the_same_place_on_the_axes_and_the_same_seed():
    rows = seeds("capacity", "output KD", (100.0, 400.0))
    rows += seeds("capacity", "output KD", (10.0, 10.0), student="10 %")
    rows += seeds("capacity", "LIFT", (200.0, 800.0))
    ratio = reading.ratio_to(rows, ("student",))
    found = ratio(rows[-2:])
    assert (found.value, found.low, found.high) == pytest.approx((2.0, 2.0, 2.0))
    assert ratio([row("capacity", "LIFT", student="31 %")]) is None


def test_columns_start_with_the_largest_student_and_the_lowest_rate():
    rows = [row("capacity", "LIFT", student=student) for student in ("2 %", "31 %", "10 %")]
    assert list(reading.columns(rows, ("student",))) == ["31 %", "10 %", "2 %"]
    rows = [row("stability", "LIFT", rate=rate) for rate in (1e-2, 3e-4)]
    assert list(reading.columns(rows, ("learning_rate",))) == ["rate 0.0003", "rate 0.01"]


def test_seeds_under_way_are_told():
    rows = [row("capacity", "LIFT", seed=seed) for seed in range(3)]
    assert reading.seeds_of(rows, ("student",)) == "3 seeds"
    rows.append(row("capacity", "no KD"))
    assert reading.seeds_of(rows, ("student",)) == "1 to 3 seeds"


def test_what_all_labels_of_an_axis_share_is_left_out():
    labels = ("1 M, predicts noise", "1 M, predicts v")
    rows = [row("normalisation", "LIFT", teacher=label) for label in labels]
    columns = reading.columns(rows, ("teacher", "student"))
    assert list(columns) == ["predicts noise, 2 %", "predicts v, 2 %"]
    assert list(reading.columns(rows[:1], ("teacher",))) == ["1 M, predicts noise"]


def test_rows_stand_in_the_order_of_their_studys_levels(tmp_path):
    names = ["l2", "groups of 4", "output KD", "LIFT+PLACE", "of another time"]
    study = load(tmp_path, [row("ablation", "LIFT+PLACE", variant=name) for name in names])
    ordered = ["output KD", "LIFT+PLACE", "groups of 4", "l2", "of another time"]
    assert [each["variant"] for each in study.rows] == ordered
    wanted = list(product(("25 %", "3 %"), ("random", "pruned"), ("no KD", "LIFT")))
    labels = ("student", "initialisation", "method")
    mixed = [dict(zip(labels, each, strict=True)) for each in reversed(wanted)]
    study = load(tmp_path / "other", [row("initialisation", **each) for each in mixed])
    assert [tuple(each[label] for label in labels) for each in study.rows] == wanted
