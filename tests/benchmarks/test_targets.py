"""Targets are judged by the rows, and a miss is shown."""

from functools import partial

import pytest
import torch

from benchmarks.cases import Case
from benchmarks.targets import Target, targets


def row(name, ms, ratio, peak=0, kept=0, l2="", mode="eager"):
    key = {"implementation": name, "mode": mode, "l2": l2, "phase": "both"}
    return key | {"ms_p50": ms, "ratio_p50": ratio, "bytes_peak": peak, "bytes_kept": kept}


warm = partial(row, l2="warm")
graph = partial(warm, mode="graph")


def test_cpu_targets_pass_and_miss():
    case = Case("place", (8, 3, 64, 64), torch.float32, 16, "cpu", 1)
    n = case.elements
    naive, ours = row("naive", 10, 1, 40 * n, 20 * n), row("torch", 8, 1.25, 20 * n, 5 * n)
    found = targets(case, [naive, ours, row("native", 0.9, 11, 12 * n)])
    assert [target.met for target in found] == [True, False, False, True, False]
    assert found[1].measured == 8  # 12 bytes an element less the gradient's 4
    assert str(found[2]).startswith("MISS") and "1.25 (at least 1.4)" in str(found[2])
    assert str(found[3]).startswith("pass") and "0.5 (at most 0.65)" in str(found[3])


def test_cuda_targets_take_the_faster_of_ours():
    case = Case("place", (96, 3, 64, 64), torch.float32, 16, "cuda", 1)
    n = case.elements
    rows = [warm("naive", 100, 1), warm("compile", 30, 3), warm("mse", 1, 100)]
    rows += [warm("triton", 4, 25, 9 * n), warm("cuda", 2, 50, 9 * n)]
    found = targets(case, rows)
    assert [target.measured for target in found] == [50, 15, 2, 5]
    assert [target.met for target in found] == [True, True, False, True]
    assert all(target.name == "cuda" for target in found)


def test_eager_and_graph_are_targets_of_their_own():
    """The baseline runs eagerly alone, so it is no measure of a graph."""
    case = Case("place", (96, 3, 64, 64), torch.float32, 16, "cuda", 1)
    eager = [warm("naive", 100, 1), warm("mse", 1, 100), warm("compile", 20, 5)]
    recorded = [graph("triton", 1, 100), graph("compile", 12, 5), graph("mse", 0.5, 200)]
    rows = [*eager, warm("cuda", 4, 25), *recorded]
    assert [(each.mode, each.name, each.text, each.measured) for each in targets(case, rows)] == [
        ("eager", "cuda", "times as fast as naive", 25),
        ("eager", "cuda", "times as fast as compile", 5),
        ("eager", "cuda", "time / mse", 4),
        ("eager", "cuda", "bytes an element beside the gradient", -4),
        ("graph", "triton", "times as fast as compile", 12),
        ("graph", "triton", "time / mse", 2),
    ]
    assert "triton in a CUDA graph, time / mse" in str(targets(case, rows)[-1])


MS = {"triton": 2, "copy": 1}


@pytest.mark.parametrize("mode", ["eager", "graph"])
def test_lift_on_a_gigabyte_is_held_against_the_copy_by_what_each_moves(mode):
    case = Case("lift", (512, 64, 64, 64), torch.float32, None, "cuda", 1)
    (bandwidth,) = targets(case, [warm(name, ms, 1, mode=mode) for name, ms in MS.items()])
    assert bandwidth.measured == pytest.approx(20 / 12 / 2) and bandwidth.met


def test_nan_meets_no_target():
    case = Case("lift", (1, 1, 8), torch.float32, None, "cpu", 1)
    assert not Target(case, "eager", "torch", "", float("nan"), 1, True).met
    assert not Target(case, "eager", "torch", "", float("nan"), 1, False).met
