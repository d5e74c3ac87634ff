"""Tables come from rows, between markers, and a miss stands beside a pass."""

from functools import partial

import pytest
import torch

from benchmarks import report, results, train
from benchmarks.cases import Case
from benchmarks.markdown import fill
from benchmarks.memory import Memory
from liftplace.common.errors import UsageError

CPU = {"date": "d", "device": "a CPU", "driver": "", "torch": "2", "triton": "", "commit": "abc"}
CUDA = CPU | {"device": "a GPU", "driver": "580"}


def save(folder, where, op="place", ms=None, modes=("eager",), shape=(1, 2, 64, 64)):
    """One case whose implementations take `ms`."""
    device = "cuda" if where["driver"] else "cpu"
    case = Case(op, shape, torch.float32, 16 if op == "place" else None, device, 1)
    samples = {
        (name, mode, l2): [{"both": time}]
        for name, time in ms.items()
        for mode in modes
        for l2 in (("warm", "cold") if where["driver"] else ("",))
    }
    used = {name: Memory(9 * case.elements, 2 * case.elements) for name in ms}
    results.save(folder / f"ops_{device}.csv", results.rows(case, where, samples, used))


def test_a_page_has_new_tables_between_its_markers(tmp_path):
    writers = {"table": partial(report.table_named, tmp_path)}
    page = "a\n<!-- table place_cpu -->\nold\n<!-- end -->\nb\n<!-- other -->\n"
    unmeasured = "Not measured yet: `python -m benchmarks ops --device cpu`."
    assert fill(page, writers) == page.replace("old", unmeasured)
    save(tmp_path, CPU, ms={"naive": 8.0, "native": 0.5, "mse": 0.25})
    filled = fill(page, writers)
    assert fill(filled, writers) == filled  # nothing doubles
    (line,) = (line for line in filled.splitlines() if "native" in line)
    assert line.split(" | ")[:8] == ["| 1x2x64x64", "1", "native", "0.5", "16", "", "2", ""]


def test_an_unknown_table_is_refused(tmp_path):
    with pytest.raises(UsageError, match="no table 'prices'; there are compile"):
        report.table_named(tmp_path, "prices")


@pytest.mark.parametrize("name", report.TABLES)
def test_without_rows_every_table_says_what_to_run(name, tmp_path):
    assert report.TABLES[name](tmp_path).startswith("Not measured yet: `python -m benchmarks ")


def test_targets_show_passes_and_misses_by_shape(tmp_path):
    save(tmp_path, CPU, ms={"naive": 8.0, "native": 0.5})
    save(tmp_path, CPU, ms={"naive": 8.0, "native": 1.0}, shape=(1, 2, 8, 8))
    lines = report.TABLES["targets_cpu"](tmp_path).splitlines()
    assert lines[0] == "|  | target |  | 1x2x64x64 | 1x2x8x8 |"
    assert "native, times as fast as naive | at least 10 | 16 | **8, missed** |" in lines[2]
    assert "beside the gradient | at most 6 | 5 | 5 |" in lines[3]


def test_cuda_tables_hold_graphs_and_the_faster_of_ours(tmp_path):
    times = {"naive": 8.0, "triton": 0.5, "cuda": 0.25, "mse": 0.5, "copy": 0.125}
    save(tmp_path, CUDA, ms=times, modes=("eager", "graph"))
    place = report.TABLES["place_cuda"](tmp_path)
    assert "| 1x2x64x64 | float32 | 16 | cuda | 0.25 | 0.25 | 32 | " in place
    assert " |  |  | 0.5 | 0.5 | 2 | 2 | 5.0 |  |" in place
    goals = report.TABLES["targets_cuda"](tmp_path)
    assert "times as fast as naive | eager | at least 30 | 32 cuda |" in goals
    assert "times as fast as naive | graph" not in goals
    assert "time / mse | graph | at most 1.5 | 0.5 cuda |" in goals


def test_compile_and_issue_tables_put_compilers_side_by_side(tmp_path):
    for compiler, registers in (("triton 3.6.0", 40), ("triton 3.9.0", 50)):
        row = {"kernel": "_k", "launch": "", "arch": "sm_90", "compiler": compiler}
        row |= {"stack": 0, "shared": 16, "instructions": 300}
        rows = [row | {"registers": registers}, row | {"registers": 30}]
        results.write(tmp_path / f"compile_{compiler}.csv", rows[0], rows)
        issued = {"arch": "sm_90", "compiler": compiler, "rows": 264, "n": 1024, "kernel": "_k"}
        issued |= {"group_size": 16, "programs": 264, "warps": 8, "executed": 990}
        results.write(tmp_path / f"issue_{compiler}.csv", issued, [issued])
    assert "| `_k` | 40, 0, 16, 300 | 50, 0, 16, 300 |" in report.TABLES["compile"](tmp_path)
    issue = report.TABLES["issue"](tmp_path)
    assert "| 1,024 |  | `_k` | 1,980 | 1,980 |" in issue
    assert "| 1,024 | 264 | all | 1,980; 2.0 us | 1,980; 2.0 us |" in issue


def test_the_trainers_steps_are_told_as_ratios(tmp_path):
    shared = dict.fromkeys(train.COLUMNS, "") | {"student": "2.9 %", "parameters": "35173"}
    eager = shared | {"mode": "eager", "data": "loader", "steps_per_second": "40.123"}
    eager |= {"ratio_p20": "1", "ratio_p50": "1", "ratio_p80": "1"}
    graph = eager | {"mode": "cuda_graphs", "steps_per_second": "400.3"}
    graph |= {"ratio_p20": "9.5", "ratio_p50": "10.2", "ratio_p80": "11"}
    results.write(tmp_path / "train_cuda.csv", train.COLUMNS, [eager, graph])
    lines = report.training(tmp_path, "cuda").splitlines()
    assert lines[-1].endswith("| cuda_graphs | loader | 400 | 10.2 (9.5 to 11) |")
    assert "| 35,173 |" in lines[-2] and "| 40.1 | 1 (1 to 1) |" in lines[-2]
