"""Which learning rates a figure of drift shows, and what stands there."""

import pytest

from benchmarks.study import reading, sweeps
from tests.benchmarks.study.rows_of_studies import drifting, row, save


def drift(folder, rows, slopes):
    finite = [pair for pair in zip(rows, slopes, strict=True) if pair[0]["status"] != "not finite"]
    save(folder, rows, [line for each, slope in finite for line in drifting(each, slope)])
    (study,) = reading.find(folder)
    return sweeps.drift(reading.compared(study.rows, study.axes), study.timesteps)


def test_the_highest_rate_is_where_every_seed_of_output_kd_holds(tmp_path):
    rows = []
    for rate in (1e-3, 1e-2, 1e-1):
        second = "not finite" if rate == 1e-1 else "ok"
        for seed, status in enumerate(("ok", second)):
            rows.append(row("stability", "output KD", rate=rate, seed=seed, status=status))
        rows.append(row("stability", "LIFT", rate=rate))
    found = drift(tmp_path, rows, [0.9] * len(rows))
    assert list(found) == [1e-3, 1e-2]
    assert list(found[1e-2]) == ["output KD", "LIFT"]


def test_medians_over_the_seeds_that_hold(tmp_path):
    rows = [row("stability", "LIFT", seed=seed) for seed in range(3)]
    rows.append(row("stability", "no KD", seed=0, rate=1e-2, status="diverged"))
    found = drift(tmp_path, rows, [0.8, 1.0, 0.9, 0.1])
    assert list(found) == [3e-3]  # one rate, because the lowest is the highest
    curve = found[3e-3]["LIFT"]
    assert list(curve) == [100, 400, 900]
    assert curve[400]["slope"] == pytest.approx(0.9 - 0.04)
    assert curve[400]["error"] == pytest.approx(0.1 * 2.718281828 ** (-0.8), rel=1e-3)


def test_without_timesteps_there_is_no_drift(tmp_path):
    save(tmp_path, [row("stability", "LIFT")])
    (study,) = reading.find(tmp_path)
    assert sweeps.drift(study.rows, study.timesteps) == {}
