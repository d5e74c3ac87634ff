"""`python -m benchmarks step` from end to end on a batch of one."""

import importlib.util

import pytest
import torch

from benchmarks import results, step
from benchmarks.__main__ import main


def test_step_writes_rows_and_prints_shares(tmp_path, capsys):
    tiny = ["step", "--batch_size", "1", "--repeats", "1", "--out", str(tmp_path)]
    assert main([*tiny, "--models", "dit", "--commit", "abc"]) == 0
    rows = results.load(tmp_path / "step_cpu.csv")
    assert list(rows[0]) == list(step.COLUMNS)
    assert [row["loss"] for row in rows] == list(step.LOSSES)
    for row in rows:
        assert 0 < float(row["loss_ms_p50"]) < float(row["ms_p50"])
        assert 0 < float(row["share_p50"]) < 1 and row["shape"] == "1x4x32x32"
    printed = capsys.readouterr().out
    assert "share of the step" in printed and "| dit | " in printed


@pytest.mark.parametrize("model", step.SHAPES)
def test_the_timed_step_is_a_plain_step(model):
    """Cutting the output from its graph, to time the loss by itself, changes nothing."""
    shape = (1, *step.SHAPES[model][1:])
    timed, plain, start = (step.make_problem(model, shape, "cpu", False) for _ in range(3))
    torch.manual_seed(1)  # labels are dropped at random
    step._eager(timed, step.LOSSES["ours"])()
    torch.manual_seed(1)
    optimizer = torch.optim.AdamW(plain.student.parameters())
    step.LOSSES["ours"](plain.output(), plain.target).backward()
    optimizer.step()
    weights = [problem.student.parameters() for problem in (timed, plain, start)]
    changed = 0
    for after, expected, before in zip(*weights, strict=True):
        torch.testing.assert_close(after, expected)
        changed += not torch.equal(after, before)
    assert changed > 10


def test_without_diffusers_it_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert main(["step"]) == 2
    assert "run `pip install diffusers`" in capsys.readouterr().err


@pytest.mark.gpu
def test_step_on_cuda(tmp_path):
    pytest.importorskip("diffusers")
    tiny = ["step", "--device", "cuda", "--batch_size", "2", "--repeats", "1", "--models", "dit"]
    assert main([*tiny, "--precisions", "bfloat16", "--out", str(tmp_path)]) == 0
    rows = results.load(tmp_path / "step_cuda.csv")
    modes = {row["mode"] for row in rows if row["loss"] == "ours"}
    assert modes == {"eager", "graph", "reduce-overhead"}
