"""Tables of studies hold what the rows say, between the markers of a page."""

import numpy as np
import pytest
import scipy.stats

from benchmarks import report
from benchmarks.study.studies import STUDIES
from benchmarks.study.tables import tables
from tests.benchmarks.study.rows_of_studies import row, save

OUTPUT, PLACE = (400.0, 500.0, 450.0), (300.0, 410.0, 345.0)


def capacity(folder):
    """Two methods, two sizes; at 1 % one seed of LIFT+PLACE diverged and all of output KD's."""
    rows = [row("capacity", method, seed=1000, phase="search", rate=rate, fd=100 / rate)
            for method in ("output KD", "LIFT+PLACE") for rate in (1e-3, 3e-3)]  # fmt: skip
    for method, values in (("output KD", OUTPUT), ("LIFT+PLACE", PLACE)):
        rows += [row("capacity", method, seed=seed, fd=fd) for seed, fd in enumerate(values)]
    rows += [row("capacity", "output KD", student="1 %", seed=seed, status="not finite")
             for seed in range(3)]  # fmt: skip
    rows += [row("capacity", "LIFT+PLACE", student="1 %", seed=seed, fd=900.0,
                 status="ok" if seed else "diverged") for seed in range(3)]  # fmt: skip
    save(folder, rows)


def cells(text, name):
    """The cells after `name` of every table in the text."""
    lines = (line.strip("| ").split(" | ") for line in text.splitlines())
    return [line[1:] for line in lines if line[0] == name]


def interval(values):
    low, high = scipy.stats.t.interval(0.95, 2, np.mean(values), scipy.stats.sem(values))
    return f"[{report.number(low)}, {report.number(high)}]"


def test_distances_ratios_and_kid_stand_with_intervals_rates_and_losses(tmp_path):
    capacity(tmp_path)
    text = tables(tmp_path)["capacity_cpu"](tmp_path)
    distance, ratio, kid, pixels = cells(text, "LIFT+PLACE")
    logs = np.log(PLACE)
    low, high = np.exp(scipy.stats.t.interval(0.95, 2, logs.mean(), scipy.stats.sem(logs)))
    mean = report.number(scipy.stats.gmean(PLACE))
    assert distance[0] == f"{mean} [{low:.0f}, {high:.0f}], at 0.003"
    assert distance[1] == "900 [900, 900], 1 of 3 diverged, at 0.003"
    factor = scipy.stats.gmean(np.divide(PLACE, OUTPUT))
    assert ratio[0].startswith(f"{factor:.3g} [") and len(ratio) == 1  # at 1 % there is none
    assert kid[0] == f"{np.mean(PLACE) / 100:.3g} {interval(np.divide(PLACE, 100))}"
    assert pixels[0] == "0.3 [0.3, 0.3]"
    assert cells(text, "output KD")[0][1] == "all 3 diverged, at 0.003"


def test_the_block_names_its_rows_and_what_stands_behind_them(tmp_path):
    capacity(tmp_path)
    text = tables(tmp_path)["capacity_cpu"](tmp_path)
    first = text.splitlines()[0]
    assert "(../benchmarks/results/study_capacity_cpu.csv)" in first
    assert "12 students of 3 seeds, 4 of them diverged, and 4 that only chose" in first
    assert "Teacher of 1 M: FD-Lite0 74, KID 0.26; real / real: 19 and -0.017." in first
    save(tmp_path, [row("sampler", "LIFT", student=f"2 %, {steps} steps", fd_teacher=fd)
                    for steps, fd in ((6, 80.0), (12, 74.0))])  # fmt: skip
    text = tables(tmp_path)["sampler_cpu"](tmp_path)
    assert "1 M, 6 steps: FD-Lite0 80, KID 0.26; Teacher of 1 M, 12 steps: FD-Lite0 74" in text


def test_a_teacher_scored_on_two_machines_is_named_once(tmp_path):
    save(tmp_path, [row("capacity", "LIFT", seed=seed, fd_teacher=fd)
                    for seed, fd in enumerate((74.214, 74.222))])  # fmt: skip
    text = tables(tmp_path)["capacity_cpu"](tmp_path)
    assert text.count("Teacher of") == 1
    assert "Teacher of 1 M: FD-Lite0 74.2, KID 0.26" in text


def test_the_parts_of_the_error_are_of_all_timesteps(tmp_path):
    rows = [row("capacity", method, seed=seed) for method in ("output KD", "LIFT")
            for seed in range(2)]  # fmt: skip
    lines = []
    for each in rows:
        times, coarse = 1 + (each["method"] == "LIFT"), 0.1 + 0.1 * each["seed"]
        lines += [{"hash": each["hash"], "step": each["step"], "timestep": timestep, "power": 1.0,
                   "total": times * total, "coarse": times * coarse, "fine": 0.1, "slope": 1,
                   "intercept": 0} for timestep, total in ((10, 0.5), (900, 1.5))]  # fmt: skip
    save(tmp_path, rows, lines)
    share, coarse, fine = cells(tables(tmp_path)["capacity_cpu"](tmp_path), "LIFT")[-3:]
    assert share[0].startswith("0.15 [") and coarse == fine == ["2 [2, 2]"]
    save(tmp_path / "without", rows)
    text = tables(tmp_path / "without")["capacity_cpu"](tmp_path / "without")
    assert "Coarse share" not in text and "Pixel error" in text


def test_figures_stand_before_tables(tmp_path):
    capacity(tmp_path)
    text = tables(tmp_path)["capacity_cpu"](tmp_path)
    assert "![capacity cpu](results/study/capacity_cpu.png)" in text
    assert text.index("capacity_ratio_cpu.png") < text.index("| --- |")


def test_ablation_rows_keep_the_order_of_the_study_and_hold_against_both(tmp_path):
    rows = [row("ablation", "LIFT+PLACE", variant=variant, seed=seed, fd=fd, **given)
            for variant, fd, given in (
                ("output KD", 400.0, {}), ("LIFT+PLACE", 500.0, {"weight": 0.9}),
                ("w = 1", 600.0, {"weight": 1, "coarse_share": 0.25, "fine_share": 0.5}),
                ("lost", 1.0, {"status": "not finite", "spikes": ""}))
            for seed in range(3)]  # fmt: skip
    save(tmp_path, rows)
    text = tables(tmp_path)["ablation_cpu"](tmp_path)
    names = [line.split(" | ")[0].strip("| ") for line in text.splitlines() if "[" in line[1:]]
    assert names[-3:] == ["output KD", "LIFT+PLACE", "w = 1"]
    assert cells(text, "lost") == [["all 3 diverged, at 0.003", "", "", "all 3 diverged"]]
    ((distance, output, default, kid, pixels, *errors, spikes, w, coarse, fine),) = cells(
        text, "w = 1"
    )
    assert distance == "600 [600, 600], at 0.003" and kid == "6 [6, 6]"
    assert errors == ["", "", ""] and spikes == "0"
    assert pixels == "0.3 [0.3, 0.3]"
    assert output == "1.5 [1.5, 1.5]" and default == "1.2 [1.2, 1.2]"
    assert (w, coarse, fine) == ("1", "0.25", "0.5")


@pytest.mark.parametrize("name", STUDIES)
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_without_rows_a_study_says_what_to_run(name, device, tmp_path):
    assert tables(tmp_path)[f"{name}_{device}"](tmp_path) == (
        f"Not measured yet: `python -m benchmarks study {name} --device {device}`."
    )


def test_a_search_alone_is_no_result(tmp_path):
    save(tmp_path, [row("capacity", "LIFT", seed=1000, phase="search")])
    assert tables(tmp_path)["capacity_cpu"](tmp_path).startswith("Not measured yet: ")


def test_a_study_of_another_name_has_a_table_too(tmp_path):
    save(tmp_path, [row("why", "LIFT", variant="as published", fd=123.0)])
    page = tmp_path / "page.md"
    page.write_text("<!-- table why_cpu -->\n<!-- end -->\n")
    assert report.fill(page, tmp_path, tables(tmp_path))
    assert "| LIFT, as published | 123 (one seed), at 0.003 |" in page.read_text()
