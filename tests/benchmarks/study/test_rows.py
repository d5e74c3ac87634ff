from benchmarks.study.grid import Cell
from benchmarks.study.rows import COLUMNS, StudyFiles

LABELS = {"teacher": "T", "student": "S", "initialisation": "random", "method": "m", "variant": ""}


def cell(study: str, seed: int, **labels) -> Cell:
    settings = {"seed": seed, "learning_rate": 1e-3}
    return Cell(study, "confirm", LABELS | labels, settings, (1,))


def row(cell: Cell, **changes) -> dict:
    return {**cell.labels, "study": cell.study, "phase": cell.phase, "hash": cell.hash,
            "step": 1, "status": "ok", "fd": 12.5, "seed": cell.seed, **changes}  # fmt: skip


def test_rows_come_back_and_a_cell_replaces_its_own(tmp_path):
    files = StudyFiles(tmp_path, "one", "cpu")
    assert files.known() == {}
    first, second = cell("one", 0), cell("one", 1)
    files.add([row(first)], [{"hash": first.hash, "step": 1, "slope": 0.5}])
    files.add([row(second)], [])
    files.add([row(first, fd=3.0)], [])
    assert tuple(files.rows()[0]) == COLUMNS
    assert {hash_: each["fd"] for hash_, each in files.known().items()} == {
        first.hash: "3", second.hash: "12.5"
    }  # fmt: skip


def test_what_another_study_has_found_is_taken_over_with_its_picture(tmp_path):
    other, files = StudyFiles(tmp_path, "other", "cpu"), StudyFiles(tmp_path, "one", "cpu")
    theirs = cell("other", 0, variant="theirs")
    other.add([row(theirs)], [{"hash": theirs.hash, "step": 1, "slope": 0.5}])
    picture = other.picture(row(theirs))
    picture.parent.mkdir()
    picture.write_bytes(b"a picture")
    same, new = cell("one", 0), cell("one", 1)
    assert files.borrow([same, new]) == [new]
    (taken,) = files.rows()
    assert (taken["study"], taken["variant"], taken["fd"]) == ("one", "", "12.5")
    assert files.picture(taken).read_bytes() == b"a picture"
    assert "0.5" in files.timesteps_path.read_text()
    assert other.rows()[0]["variant"] == "theirs"


def test_nothing_is_taken_from_another_device(tmp_path):
    theirs = cell("other", 0)
    StudyFiles(tmp_path, "other", "cuda").add([row(theirs)], [])
    assert StudyFiles(tmp_path, "one", "cpu").borrow([cell("one", 0)]) == [cell("one", 0)]
