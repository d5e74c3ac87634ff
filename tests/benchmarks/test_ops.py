"""`python -m benchmarks ops` from end to end on a tiny shape."""

from itertools import product

import pytest
import torch

from benchmarks import ops, results
from benchmarks.__main__ import main, parse
from benchmarks.cases import CPU_SHAPES, cases
from benchmarks.implementations import Implementation
from liftplace import place_loss

TINY = ["ops", "--shapes", "1,2,8,8", "--repeats", "1", "--threads", "1", "--commit", "abc"]
FEW = ["--implementations", "torch", "mse", "copy"]


def test_ops_writes_rows_and_prints_table_and_targets(tmp_path, capsys):
    assert main([*TINY, *FEW, "--out", str(tmp_path)]) == 0
    rows = results.load(tmp_path / "ops_cpu.csv")
    assert list(rows[0]) == list(results.COLUMNS)
    measured = {(row["op"], row["implementation"], row["phase"]) for row in rows}
    phases = ("forward", "backward", "both")
    want = set(product(("place", "lift"), ("naive", "torch", "mse"), phases))
    assert measured == want | {("place", "copy", "both"), ("lift", "copy", "both")}
    optional = {"driver", "triton", "group_size", "l2", "bytes_peak", "bytes_kept", "launches"}
    for row in rows:
        assert all(row[key] for key in results.COLUMNS if key not in optional), row
        assert 0 < float(row["ms_p20"]) <= float(row["ms_p50"]) <= float(row["ms_p80"])
        assert (row["threads"], row["repeats"], row["shape"]) == ("1", "1", "1x2x8x8")
        assert row["commit"] == "abc"
        if row["phase"] == "both":
            assert float(row["bytes_peak"]) >= float(row["bytes_kept"]) >= 0
    printed = capsys.readouterr().out
    assert "torch, times as fast as naive" in printed and "kept memory / naive's" in printed


def test_resume_measures_what_is_missing_and_keeps_the_rest(tmp_path, capsys):
    place = [*TINY, "--ops", "place", "--out", str(tmp_path), "--implementations"]
    path = tmp_path / "ops_cpu.csv"
    assert main([*place, "mse"]) == 0
    first = results.load(path)
    assert main([*place, "mse", "--resume"]) == 0
    assert results.load(path) == first
    assert main([*place, "copy", "--resume"]) == 0
    assert {row["implementation"] for row in results.load(path)} == {"naive", "mse", "copy"}
    assert main([*place, "mse", "--resume", "--commit", "def"]) == 0
    by_commit = {row["implementation"]: row["commit"] for row in results.load(path)}
    assert by_commit == {"naive": "def", "mse": "def", "copy": "abc"}
    assert "are left" not in capsys.readouterr().out


def test_a_case_that_does_not_fit_leaves_the_others(tmp_path, capsys, monkeypatch):
    measure = ops.measure

    def without_memory_for_place(case, *rest):
        if case.op == "place":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried\nto allocate")
        return measure(case, *rest)

    monkeypatch.setattr(ops, "measure", without_memory_for_place)
    assert main([*TINY, "--out", str(tmp_path), "--implementations", "mse"]) == 0
    assert {row["op"] for row in results.load(tmp_path / "ops_cpu.csv")} == {"lift"}
    assert "groups of 16, 1 CPU thread(s): CUDA out of memory" in capsys.readouterr().out


def test_what_does_not_compile_is_left_out(tmp_path, capsys, monkeypatch):
    def broken(student, teacher):
        raise torch._dynamo.exc.InternalTorchDynamoError("no such operator\nsecond line")

    found = [Implementation("naive", place_loss), Implementation("compile", broken)]
    monkeypatch.setattr(ops, "implementations", lambda *_: (list(found), {}))
    assert main([*TINY, "--ops", "place", "--out", str(tmp_path)]) == 0
    assert {row["implementation"] for row in results.load(tmp_path / "ops_cpu.csv")} == {"naive"}
    printed = capsys.readouterr().out
    assert "not measured: compile: torch.compile failed: no such operator\n" in printed


def test_the_headline_comes_first():
    found = cases(parse(["ops", "--threads", "1", "--group_sizes", "16", "256"]))
    shapes = len(CPU_SHAPES)
    assert len(found) == 3 * shapes
    assert [case.op for case in found[::shapes]] == ["place", "lift", "place"]
    assert [case.group_size for case in found[::shapes]] == [16, None, 256]


@pytest.mark.gpu
def test_ops_on_cuda(tmp_path):
    tiny = "ops --device cuda --shapes 1,2,16,16 --repeats 1 --group_sizes 16".split()
    assert main([*tiny, "--out", str(tmp_path), "--implementations", "triton", "mse", "copy"]) == 0
    rows = results.load(tmp_path / "ops_cuda.csv")
    assert {row["l2"] for row in rows} == {"cold", "warm"}
    assert {"eager", "graph"} == {row["mode"] for row in rows if row["implementation"] == "triton"}
    counted = [row for row in rows if row["mode"] == "eager" and row["phase"] == "both"]
    assert all(int(row["launches"]) > 0 for row in counted)


def test_a_red_contender_is_named_and_the_others_are_timed(tmp_path, capsys, monkeypatch):
    calls = []

    def wrong(student, teacher):
        calls.append(student.shape)
        return place_loss(student, teacher, group_size=8)

    losses = {"naive": place_loss, "wrong": wrong, "right": place_loss}
    found = [Implementation(name, loss) for name, loss in losses.items()]
    monkeypatch.setattr(ops, "implementations", lambda *_: (list(found), {}))
    place = [*TINY, "--ops", "place", "--out", str(tmp_path)]
    assert main(place) == 1
    measured = {row["implementation"] for row in results.load(tmp_path / "ops_cpu.csv")}
    assert measured == {"naive", "right"} and len(calls) == 1
    printed = capsys.readouterr().out
    assert "red: wrong on place (1, 2, 8, 8) float32, groups of 16" in printed
    assert "GateError: wrong is wrong on" in printed
    assert main([*place, "--resume"]) == 1 and len(calls) == 1  # named again, not tried again
    assert "red: wrong on place" in capsys.readouterr().out
    found.remove(found[1])
    assert main(place) == 0  # anew, and it is green


def test_a_red_baseline_leaves_the_other_cases(tmp_path, capsys, monkeypatch):
    def breaks(student, teacher):
        raise RuntimeError("no baseline today")

    real = ops.implementations

    def without_baseline_for_place(case, *rest):
        if case.op == "lift":
            return real(case, *rest)
        return [Implementation("naive", breaks), Implementation("right", place_loss)], {}

    monkeypatch.setattr(ops, "implementations", without_baseline_for_place)
    assert main([*TINY, *FEW, "--out", str(tmp_path)]) == 1
    assert {row["op"] for row in results.load(tmp_path / "ops_cpu.csv")} == {"lift"}
    assert "RuntimeError: no baseline today" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--shapes", "8,8"], "'8,8' is no shape: write B,C,H,W"),
        (["--shapes", "8,a,8"], "'8,a,8' is no shape"),
        (["--repeats", "0"], "'0' is no count"),
        (["--implementations", "fast"], "invalid choice: 'fast'"),
    ],
)
def test_bad_flags_are_refused(flags, message, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["ops", *flags])
    assert stop.value.code == 2 and message in capsys.readouterr().err
