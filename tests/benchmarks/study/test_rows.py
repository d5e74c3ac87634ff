import json

import numpy as np

from benchmarks.study import sheet
from benchmarks.study.grid import Cell
from benchmarks.study.rows import COLUMNS, StudyFiles, student_strip, teacher_strip

LABELS = {"teacher": "T", "student": "S", "initialisation": "random", "method": "m", "variant": ""}


def cell(study: str, seed: int, **labels) -> Cell:
    settings = {"seed": seed, "learning_rate": 1e-3, "teacher_sha256": "t"}
    return Cell(study, "confirm", LABELS | labels, settings, (1,))


def row(cell: Cell, **changes) -> dict:
    made = {**cell.labels, "study": cell.study, "phase": cell.phase, "hash": cell.hash, "step": 1}
    made |= {"status": "ok", "fd": 12.5, "seed": cell.seed, "settings": json.dumps(cell.settings)}
    return made | changes


def test_rows_come_back_and_a_cell_replaces_its_own(tmp_path):
    files = StudyFiles(tmp_path, "one", "cpu")
    assert files.known() == {}
    first, second = cell("one", 0), cell("one", 1)
    files.add([row(first)], [{"hash": first.hash, "step": 1, "slope": 0.5}])
    files.add([row(second)], [])
    files.add([row(first, fd=3.0)], [])
    assert tuple(files.rows()[0]) == COLUMNS
    distances = {hash_: each["fd"] for hash_, each in files.known().items()}
    assert distances == {first.hash: "3", second.hash: "12.5"}


def test_what_another_study_has_found_is_taken_over_with_its_samples(tmp_path):
    other, files = StudyFiles(tmp_path, "other", "cpu"), StudyFiles(tmp_path, "one", "cpu")
    borrowed = cell("other", 0, variant="another name")
    other.add([row(borrowed)], [{"hash": borrowed.hash, "step": 1, "slope": 0.5}])
    names = student_strip(row(borrowed)), teacher_strip(row(borrowed))
    sheet.add(other.samples_path, {name: np.full((2, 8), 7, np.uint8) for name in (*names, "x")})
    same, new = cell("one", 0), cell("one", 1)
    assert files.borrow([same, new]) == [new]
    (taken,) = files.rows()
    assert (taken["study"], taken["variant"], taken["fd"]) == ("one", "", "12.5")
    assert sheet.read(files.samples_path).keys() == set(names)
    assert "0.5" in files.timesteps_path.read_text()
    assert other.rows()[0]["variant"] == "another name"


def test_nothing_is_taken_from_another_device(tmp_path):
    StudyFiles(tmp_path, "other", "cuda").add([row(cell("other", 0))], [])
    assert StudyFiles(tmp_path, "one", "cpu").borrow([cell("one", 0)]) == [cell("one", 0)]
