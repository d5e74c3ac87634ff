"""Every study is drawn, with what its rows say."""

import numpy as np
import pytest
from matplotlib import image

from benchmarks.__main__ import main
from benchmarks.study import figures, reading
from tests.benchmarks.study.rows_of_studies import drifting, row, save

METHODS = ("no KD", "output KD", "LIFT+PLACE")


VARIED = {  # a small study of each kind
    "capacity": [{"student": student} for student in ("10 %", "2 %")],
    "teacher_size": [{"teacher": "1 M"}, {"teacher": "3 M", "share": 0.0067}],
    "initialisation": [
        {"initialisation": kind, "student": student}
        for kind in ("random", "pruned")
        for student in ("10 %", "2 %")
    ],
    "normalisation": [
        {"teacher": f"1 M, predicts {what}", "student": f"2 %, {groups}"}
        for what in ("noise", "v")
        for groups in ("narrow", "wide")
    ],
    "sampler": [{"student": f"2 %, {n} steps", "fd_teacher": 100.0 - n} for n in (6, 12)],
    "stability": [{"rate": rate} for rate in (1e-3, 1e-2)],
    "long": [{"step": step} for step in (1000, 4000)],
    "ablation": [{"variant": variant} for variant in ("", "a long name of a variant")],
    "regime": [{"student": f"2 %, {norms}", "fd_leading": 300.0} for norms in ("narrow", "wide")],
}
MORE = {"stability": ["stability_timesteps"]}  # pictures


def rows_of(name):
    return [
        row(name, method, seed=seed, fd=400.0 + 30 * place + 11 * seed, **columns)
        for place, method in enumerate(METHODS)
        for columns in VARIED[name]
        for seed in range(2)
    ]


@pytest.mark.parametrize("name", VARIED)
def test_every_study_has_its_pictures(name, tmp_path):
    rows = rows_of(name)
    timesteps = [line for each in rows for line in drifting(each, 0.97)]
    save(tmp_path, rows, timesteps if name == "stability" else (), strips=True)
    drawn = figures.draw(tmp_path, tmp_path / "out")
    kinds = [name, *MORE.get(name, []), f"{name}_samples"]
    assert [path.name for path in drawn] == [f"{kind}_cpu.png" for kind in kinds]
    for path in drawn:
        pixels = image.imread(path)[..., :3]
        assert pixels.shape[1] >= 800 and pixels.std() > 0.05
        bars = pixels.std(axis=(0, 2)) > 0
        assert not bars[:4].any() and not bars[-4:].any()  # nothing is cut at the sides


def test_partial_rows_are_drawn_and_diverged_ones_too(tmp_path):
    rows = [row("capacity", "LIFT", fd=300.0), row("capacity", "no KD", status="diverged")]
    save(tmp_path, rows)
    assert [path.name for path in figures.draw(tmp_path, tmp_path / "out")] == ["capacity_cpu.png"]


@pytest.mark.parametrize("given", [{"status": "diverged"}, {"phase": "search", "seed": 1000}])
def test_nothing_is_drawn_where_no_student_can_be(given, tmp_path):
    save(tmp_path, [row("long", "LIFT", **given)])
    assert figures.draw(tmp_path, tmp_path / "out") == []


def test_students_that_a_study_does_not_compare_have_pictures_of_their_own(tmp_path):
    save(tmp_path, [row("ablation", "LIFT", student=student) for student in ("2 %", "10 %")])
    (study,) = reading.find(tmp_path)
    assert list(figures.pictures(study)) == ["ablation_cpu_1.png", "ablation_cpu_2.png"]


def test_plot_draws_studies_and_writes_their_pages(tmp_path, capsys):
    results, docs = tmp_path / "results", tmp_path / "docs"
    save(results, rows_of("capacity"))
    assert main(["plot", "--results", str(results), "--out", str(docs)]) == 0
    picture = docs / "results" / "study" / "capacity_cpu.png"
    assert str(picture) in capsys.readouterr().out
    assert f"({picture.name})" in (docs / "results" / "study" / "capacity.md").read_text()
    assert np.ptp(image.imread(picture)) > 0.5
