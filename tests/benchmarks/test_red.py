"""What failed is left out, named and kept; a lost GPU ends the process."""

import pytest

from benchmarks import red, results
from benchmarks.red import COLUMNS, EVERYTHING, DeviceLostError, RedList

WHERE = {"date": "2026-01-01", "device": "a GPU", "driver": "1", "commit": "abc"}
PLACE, OTHER, LIFT = "place (1, 2) float32", "place (3, 4) float32", "lift (1, 2) float32"


@pytest.fixture
def reds(tmp_path):
    return RedList(tmp_path / "red_cuda.csv", "ops", WHERE)


def fail(reds, case, *implementation):
    with reds.guard(case, *implementation):
        raise ValueError("too big\nby far")


def test_an_error_is_noted_for_its_case(reds, capsys):
    with reds.guard(PLACE, "cuda"):
        pass
    assert not reds.path.exists() and not reds.names(PLACE)
    fail(reds, PLACE, "cuda")
    fail(reds, PLACE, "cuda")  # again: one row
    fail(reds, OTHER)
    assert reds.names(PLACE) == {"cuda"} and reds.names(OTHER) == {EVERYTHING}
    assert not reds.names(LIFT)
    assert list(reds.rows()[0]) == list(COLUMNS) and len(reds.rows()) == 2
    assert reds.report().splitlines()[0] == f"red: cuda on {PLACE}: ValueError: too big"
    assert "red: cuda on" in capsys.readouterr().out


def test_another_program_commit_or_device_has_its_own(reds):
    fail(reds, PLACE, "cuda")
    for other in (
        RedList(reds.path, "sweep", WHERE),
        RedList(reds.path, "ops", WHERE | {"commit": "def"}),
        RedList(reds.path, "ops", WHERE | {"device": "another"}),
    ):
        assert not other.names(PLACE)
        fail(other, PLACE, "torch")
    reds.forget()
    assert not reds.rows() and len(results.load(reds.path)) == 3


def test_a_lost_gpu_ends_the_process_and_the_op_goes_on_without_the_culprit(reds, monkeypatch):
    monkeypatch.setattr(red, "_device_lives", lambda: False)
    with pytest.raises(DeviceLostError, match="lost after cuda on place"):
        with reds.guard(PLACE):  # around all of a case
            fail(reds, PLACE, "cuda")
    with pytest.raises(DeviceLostError):
        fail(reds, LIFT)
    assert reds.names(OTHER) == {"cuda"}
    assert reds.names(LIFT) == {EVERYTHING} and not reds.names("lift (3, 4)")
