"""Contenders take turns, and phases add up."""

import math
from types import SimpleNamespace

import pytest
import torch

from benchmarks import timing
from benchmarks.cases import Case, inputs
from benchmarks.implementations import Implementation, implementations


def contender(name, log):
    def sample():
        log.append(name)
        return {"both": float(len(log))}

    return timing.Contender(name, "eager", "", sample)


def test_interleave_runs_each_once_a_round_in_changing_order():
    log = []
    names = ["a", "b", "c", "d"]
    samples = timing.interleave([contender(name, log) for name in names], 20)
    rounds = [log[i : i + 4] for i in range(4, len(log), 4)]  # the first warms up
    assert len(rounds) == 20 and all(sorted(turn) == names for turn in rounds)
    assert len({tuple(turn) for turn in rounds}) > 1
    for name in names:  # the n-th sample is the one of round n
        times = [sample["both"] for sample in samples[name, "eager", ""]]
        assert times == [4 + 4 * i + turn.index(name) + 1 for i, turn in enumerate(rounds)]


def test_cpu_contender_times_forward_and_backward():
    case = Case("place", (1, 2, 8, 8), torch.float32, 16, "cpu", 1)
    student, teacher = inputs(case)
    found, _ = implementations(case, student, teacher, ["torch", "copy"])
    for implementation in found:
        sample = timing.cpu_contender(implementation, student, teacher).sample()
        assert min(sample.values()) > 0
        if implementation.name == "copy":
            assert sample.keys() == {"both"}
        else:
            assert sample["both"] == pytest.approx(sample["forward"] + sample["backward"])


def test_the_first_case_builds_kernels_and_tells_about_the_second_alone(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(timing, "time", SimpleNamespace(monotonic=lambda: now[0]))

    def begun(deadline, took):
        now[0] = 0.0
        return [now.append(now.pop() + took[i]) or i for i in timing.in_time(range(3), deadline)]

    assert begun(25, (10, 2, 2)) == begun(15, (7, 2, 2)) == [0, 1, 2]
    assert begun(19, (10, 2, 2)) == [0]
    assert begun(25, (10, 8, 2)) == [0, 1]
    assert begun(math.inf, (10, 8, 2)) == [0, 1, 2] and begun(0, (1, 1, 1)) == []


def test_short_steps_share_a_graph():
    assert timing.unrolled(0.01) == timing.unrolled(0.1) == timing.UNROLLED
    assert timing.unrolled(1.0) == 4 and timing.unrolled(300.0) == 1


@pytest.mark.gpu
def test_a_graph_gives_the_time_of_one_step():
    x = torch.zeros(1 << 26, device="cuda")
    once = timing.graphed(lambda: x.add_(1))
    thrice = timing.graphed(lambda: x.add_(1).add_(1).add_(1))
    before = x[0].item()
    least = [min(graph() for _ in range(10)) for graph in (thrice, once)]  # others use the GPU too
    assert 2.5 < least[0] / least[1] < 3.5
    assert x[0].item() > before


@pytest.mark.gpu
def test_cuda_contenders_sample_eager_and_graph():
    case = Case("place", (1, 2, 8, 8), torch.float32, 16, "cuda", 1)
    student, teacher = inputs(case)
    flush = timing.l2_flush()
    found, _ = implementations(case, student, teacher, ["triton", "mse"])
    for implementation in found:
        contenders, reason = timing.cuda_contenders(implementation, student, teacher, flush)
        modes = {contender.mode for contender in contenders}
        assert modes == ({"eager"} if implementation.name == "naive" else {"eager", "graph"})
        assert bool(reason) == (implementation.name == "naive")
        assert all(min(contender.sample().values()) > 0 for contender in contenders)


@pytest.mark.gpu
def test_count_launches_of_an_addition():
    ones = torch.ones(8, device="cuda")
    add = Implementation("add", torch.add, differentiable=False)
    assert timing.count_launches(add, ones, ones) == 1
