"""Every alternative of a choice is timed, and today's choice is marked."""

import pytest
import torch

from benchmarks import results, sweep
from benchmarks.__main__ import main
from benchmarks.cases import Case, inputs
from liftplace.kernels.fused.launch import lift_launch, place_launch


def test_sweep_writes_rows_and_marks_the_choice(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sweep, "CPU_SIZES", ((2, 64),))
    assert main(["sweep", "--repeats", "2", "--out", str(tmp_path), "--commit", "abc"]) == 0
    rows = results.load(tmp_path / "sweep_cpu.csv")
    assert list(rows[0]) == list(sweep.COLUMNS)
    assert {(row["op"], row["group_size"]) for row in rows} == {("place", "16"), ("lift", "")}
    assert {row["kind"] for row in rows} == {"implementation"} and "torch" in {
        row["name"] for row in rows
    }
    for op in ("place", "lift"):
        of_op = [row for row in rows if row["op"] == op]
        assert [row["chosen"] for row in of_op].count("yes") == 1
        assert min(float(row["over_fastest"]) for row in of_op) == 1
    assert "place (2, 64) float32 groups of 16, eager: " in capsys.readouterr().out


def test_sweep_resumes_and_survives_what_is_red(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sweep, "CPU_SIZES", ((2, 64),))
    command = ["sweep", "--repeats", "1", "--out", str(tmp_path), "--commit"]
    path = tmp_path / "sweep_cpu.csv"
    assert main([*command, "abc", "--minutes", "0"]) == 0
    assert "2 of 2 cases are left" in capsys.readouterr().out and not path.exists()
    assert main([*command, "abc"]) == 0
    first = results.load(path)
    assert main([*command, "abc", "--resume"]) == 0 and results.load(path) == first
    cpu_contender = sweep.timing.cpu_contender

    def no_torch(implementation, *inputs):
        if implementation.name == "torch" and inputs[0].shape[1] == 2:
            raise RuntimeError("broken")
        return cpu_contender(implementation, *inputs)

    monkeypatch.setattr(sweep.timing, "cpu_contender", no_torch)
    assert main([*command, "def", "--resume"]) == 1
    assert "red: torch on place (1, 2, 64) float32, groups of 16" in capsys.readouterr().out
    assert "torch" not in {row["name"] for row in results.load(path)}
    assert {row["commit"] for row in results.load(path)} <= {"abc", "def"}


@pytest.mark.parametrize("rows, n", [(24, 1024), (256, 4096), (24, 8192), (48, 65_536)])
def test_alternatives_of_place_hold_todays_choice_once(rows, n):
    named, chosen = sweep.alternatives(rows, n, 16)
    assert named[chosen] == place_launch(rows, n, 16)
    assert len(set(named.values())) == len(named) > 2
    kinds = {launch.sort is None for launch in named.values()}
    assert kinds == ({True, False} if n <= 8192 else {False})


def test_alternatives_of_lift_differ_in_chunks():
    named, chosen = sweep.alternatives(24, 16_384, None)
    assert named[chosen] == lift_launch(24, 16_384)
    assert {launch.chunks for launch in named.values()} == {1, 4, 8, 16}


def test_report_names_a_choice_that_is_behind():
    shared = vars(sweep.Problem("launch", "place", 1, 64, "float32", 16, "graph"))
    chosen = shared | {"name": "a", "chosen": "yes", "ms_p50": 3.0, "over_fastest": 2.0}
    rows = [chosen, shared | {"name": "b", "chosen": "", "ms_p50": 1.5, "over_fastest": 1.0}]
    lines = sweep.report(rows).splitlines()
    assert lines[0] == "place (1, 64) float32 groups of 16, graph: b 1.5 ms, a (chosen) 3 ms"
    assert lines[-1].endswith("b would be 2.00 times as fast")


@pytest.mark.parametrize("impl", ["triton"])
@pytest.mark.parametrize("group_size", [None, 16])
def test_alternatives_agree(impl, group_size, device):
    case = Case("place", (1, 2, 1030), torch.float32, group_size, device, 1)
    student, teacher = (x.detach()[0] for x in inputs(case))
    named, chosen = sweep.alternatives(2, 1030, group_size)
    expected = sweep._forward(student, teacher, group_size, named[chosen])[0]
    for launch in named.values():
        found = sweep._forward(student, teacher, group_size, launch)[0]
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.gpu
def test_sweep_on_cuda(tmp_path, monkeypatch):
    monkeypatch.setattr(sweep, "CUDA_SIZES", ((24, 1024),))
    assert main(["sweep", "--device", "cuda", "--repeats", "2", "--out", str(tmp_path)]) == 0
    rows = results.load(tmp_path / "sweep_cuda.csv")
    assert {row["kind"] for row in rows} == {"implementation", "launch"}
    assert {row["mode"] for row in rows} == {"eager", "graph"}
    assert {"triton", "torch"} <= {row["name"] for row in rows if row["kind"] == "implementation"}
