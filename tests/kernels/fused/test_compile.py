"""Every kernel compiles for every architecture without spilling a register; no GPU needed."""

import csv
import os
import subprocess
import sys

import pytest

KERNELS = {"_lift_fwd_kernel", "_lift_chunks_kernel", "_lift_merge_kernel", "_place_fwd_kernel"}
KERNELS |= {"_sort_chunks_kernel", "_merge_runs_kernel", "_group_moments_kernel"}
KERNELS |= {"_combine_kernel", "_backward_kernel"}
# A subset that reaches every kernel and both ends of each size; the whole table is a benchmark.
PROGRAM = """
import sys
from pathlib import Path
from benchmarks.compile import compile_all, issue_all, write_rows
from benchmarks.compile_rows import Issue, Problem, Row
import torch

if __name__ == "__main__":
    problems = [
        Problem(1, 4, 2),
        Problem(8, 1500, 16, torch.bfloat16, torch.float32),
        Problem(8, 1000, 100, squared=True),
        Problem(1, 70_000, 15_000),
    ]
    folder = Path(sys.argv[1])
    write_rows(Row, compile_all(problems=problems), folder / "table.csv")
    write_rows(Issue, issue_all((90,), problems[-1:]), folder / "issue.csv")
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compile")
    program = folder / "program.py"
    program.write_text(PROGRAM)
    # Triton reads TRITON_INTERPRET when it is imported, so the compiler needs its own process.
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    environment["PYTHONPATH"] = os.pathsep.join(["."] + sys.path)
    result = subprocess.run(
        [sys.executable, program, folder], env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    return folder


@pytest.fixture(scope="module")
def rows(folder):
    return _read(folder / "table.csv")


def _read(path):
    with path.open() as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("arch", ["sm_80", "sm_90", "sm_100"])
def test_every_kernel_compiles(rows, arch):
    assert {row["kernel"] for row in rows if row["arch"] == arch} == KERNELS


def test_nothing_spills(rows):
    assert [row for row in rows if int(row["stack"]) > 0] == []


def test_registers_leave_room(rows):
    """A block of threads fits the 65,536 registers of a multiprocessor."""
    for row in rows:
        warps = int(row["launch"].split()[-2])
        assert 0 < int(row["registers"]) * warps * 32 <= 65_536, row


def test_issue_counts_launches_and_the_trips_of_the_merge(folder):
    """One row of 70,000: 18 chunks of 4096, merged by 16 and then by 2, and 5 groups."""
    sort, *merges, fit = _read(folder / "issue.csv")
    assert (sort["kernel"], sort["programs"]) == ("_sort_chunks_kernel", "18")
    assert [merge["kernel"] for merge in merges] == ["_merge_runs_kernel"] * 2
    assert (fit["kernel"], fit["programs"]) == ("_group_moments_kernel", "5")
    assert int(sort["executed"]) > 2000  # 78 steps of the network, 8 keys a thread
    assert int(merges[0]["executed"]) > 13 * 8 * 3  # 13 probes, 8 a thread
