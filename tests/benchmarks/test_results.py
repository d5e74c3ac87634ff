"""Rows, the CSV file and the table."""

import pytest
import torch

from benchmarks import results
from benchmarks.cases import Case
from benchmarks.memory import Memory

CASE = Case("place", (1, 2, 8, 8), torch.float32, 16, "cpu", 1)
WHERE = {"date": "2026-01-01", "device": "a CPU", "commit": "abc"}
WHERE |= dict.fromkeys(("driver", "torch", "triton"), "")


def make(case=CASE, ours=(1.0, 2.0, 4.0), name="torch"):
    """naive takes 8 ms and then 4 ms and 4 ms, half of it forward."""
    samples = {
        (key, "eager", ""): [{"forward": t / 2, "backward": t / 2, "both": t} for t in times]
        for key, times in (("naive", (8.0, 4.0, 4.0)), (name, ours))
    }
    used = {"naive": Memory(1280, 640), name: Memory(640, 128)}
    return results.rows(case, WHERE, samples, used)


def test_rows_hold_every_column_and_paired_ratios():
    rows = {(row["implementation"], row["phase"]): row for row in make()}
    assert len(rows) == 6
    assert all(set(row) == set(results.COLUMNS) for row in rows.values())
    both = rows["torch", "both"]
    assert both["ratio_p50"] == 2.0  # of 8, 2 and 1: round by round, not 4 / 2
    assert both["ratio_p80"] == pytest.approx(5.6)
    assert both["ms_p50"] == 2.0 and both["repeats"] == 3
    assert results.gb_per_s(CASE, both) == pytest.approx((5 * 4 + 4) * 128 / 2e-3 / 1e9)
    assert (both["bytes_peak"], both["bytes_kept"]) == (640, 128)
    assert rows["torch", "forward"]["bytes_peak"] == ""
    assert (both["shape"], both["dtype"], both["group_size"]) == ("1x2x8x8", "float32", "16")


def test_save_replaces_the_same_case_and_keeps_others(tmp_path):
    path = tmp_path / "new" / "ops_cpu.csv"
    other = Case("lift", CASE.shape, CASE.dtype, None, "cpu", 1)
    results.save(path, make())
    results.save(path, make(other))
    results.save(path, make(ours=(2.0, 4.0, 8.0)))
    rows = results.load(path)
    assert len(rows) == 12 and list(rows[0]) == list(results.COLUMNS)
    ours = [row for row in rows if row["implementation"] == "torch" and row["phase"] == "both"]
    assert {row["op"]: row["ms_p50"] for row in ours} == {"lift": "2", "place": "4"}
    assert [file.name for file in path.parent.iterdir()] == ["ops_cpu.csv"]


def test_save_keeps_other_implementations_of_the_case(tmp_path):
    path = tmp_path / "ops_cpu.csv"
    results.save(path, make())
    results.save(path, make(name="native"))
    both = [row for row in results.load(path) if row["phase"] == "both"]
    assert [row["implementation"] for row in both] == ["torch", "naive", "native"]


def test_save_launches_beside_the_eager_rows(tmp_path):
    path = tmp_path / "ops_cpu.csv"
    lift = Case("lift", CASE.shape, CASE.dtype, None, "cpu", 1)
    results.save(path, make() + make(lift))
    results.save_launches(path, results.identity(CASE, WHERE), {"torch": 3})
    counted = [row for row in results.load(path) if row["launches"]]
    (row,) = counted
    assert [row[name] for name in ("op", "implementation", "phase", "launches")] == [
        *("place", "torch", "both", "3")
    ]


def test_numbers_and_case_come_back_from_the_file(tmp_path):
    path = tmp_path / "ops_cpu.csv"
    results.save(path, make())
    rows = results.numbers(results.load(path))
    assert all(results.case_of(row) == CASE for row in rows)
    both = next(row for row in rows if (row["implementation"], row["phase"]) == ("torch", "both"))
    assert both["ms_p50"] == 2.0 and both["bytes_peak"] == 640 and both["launches"] == ""


def test_table_shows_each_implementation_once():
    lines = results.table("a title", make()).splitlines()
    assert lines[0] == "a title"
    naive, ours = lines[2].split(), lines[3].split()
    assert (naive[0], ours[0]) == ("naive", "torch")
    assert "10.00" in naive and "5.00" in naive  # bytes an element, peak and kept
    assert "2.00" in ours and "1.00" in ours
