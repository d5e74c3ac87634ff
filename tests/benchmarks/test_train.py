"""`python -m benchmarks train` from end to end on the smaller student."""

import pytest
import torch

from benchmarks import results, train
from benchmarks.__main__ import main, parse
from liftplace.common.errors import UsageError

TINY = ["train", "--students", "2.9 %", "--train_batch_size", "2", "--steps", "1"]


def test_train_writes_rows_and_prints_rates(tmp_path, capsys):
    arguments = [*TINY, "--repeats", "2", "--out", str(tmp_path), "--commit", "abc"]
    for _ in range(2):  # again: rows are replaced
        assert main(arguments) == 0
    rows = results.load(tmp_path / "train_cpu.csv")
    assert list(rows[0]) == list(train.COLUMNS)
    assert [(row["mode"], row["data"]) for row in rows] == [("eager", name) for name in train.DATA]
    for row in rows:
        assert row["student"] == "2.9 %" and row["commit"] == "abc"
        assert float(row["share"]) == pytest.approx(0.029, abs=5e-4)
        assert float(row["steps_per_second"]) == pytest.approx(1e3 / float(row["ms_p50"]), rel=1e-3)
    assert float(rows[0]["ratio_p20"]) == float(rows[0]["ratio_p80"]) == 1
    printed = capsys.readouterr().out
    assert "| 2.9 % | 35,173 | place | no | eager |" in printed and "steps a second" in printed


def test_every_way_learns_the_same():
    options = parse(TINY)
    runs = [train.make_run("2.9 %", "eager", data, options) for data in train.DATA]
    for run in runs:
        run.step()
        run.step()
    one, other = (run.trainer.model.state_dict() for run in runs)
    assert all(torch.equal(weight, other[name]) for name, weight in one.items())
    fresh = train.make_run("2.9 %", "eager", "loader", options).trainer.model.state_dict()
    assert not torch.equal(one["conv_in.weight"], fresh["conv_in.weight"])


def test_what_cannot_run_is_named(tmp_path, capsys):
    arguments = [*TINY, "--modes", "cuda_graphs", "--repeats", "1", "--out", str(tmp_path)]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert "not measured: 2.9 %, cuda_graphs, loader: UsageError: --cuda_graphs needs" in printed
    assert len(results.load(tmp_path / "train_cpu.csv")) == 2


def test_the_baseline_must_run(monkeypatch):
    def fail(*arguments):
        raise UsageError("no room")

    monkeypatch.setattr(train, "make_run", fail)
    with pytest.raises(UsageError, match="no room"):
        train.measure("2.9 %", {}, parse(TINY))


def test_all_modes_on_a_gpu_and_the_baseline_first():
    options = parse(["train", "--device", "cuda"])
    assert options.students == list(train.STUDENTS) and train.modes(options) == list(train.MODES)
    assert train.modes(parse(["train", "--modes", "compile"])) == ["eager", "compile"]
