"""A function by a CUDA graph: on a CPU by tests.train.recording."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from liftplace.common.errors import UsageError
from liftplace.train import capture
from liftplace.train.capture import Captured, check_capture
from tests.train import recording
from tests.train.tiny import config_for


def test_python_runs_once_and_the_result_is_overwritten(monkeypatch):
    recording.on_a_cpu(monkeypatch)
    calls = []

    def double(given, factor):
        calls.append(factor)
        return {"twice": given["x"] * factor}

    captured = Captured(double)
    first = captured({"x": torch.tensor([1.0, 2.0])}, 2)["twice"]
    assert first.tolist() == [2, 4]
    second = captured({"x": torch.tensor([5.0, -1.0])}, 2)["twice"]
    assert second is first and first.tolist() == [10, -2]
    assert len(calls) == capture.WARM_UPS + 1


@pytest.mark.parametrize(
    "other", [({"x": torch.zeros(3)}, 2), ({"y": torch.zeros(2)}, 2), ({"x": torch.zeros(2)}, 3),
              ({"x": torch.zeros(2, dtype=torch.float64)}, 2)],
)  # fmt: skip
def test_arguments_of_another_kind_are_refused(monkeypatch, other):
    recording.on_a_cpu(monkeypatch)
    captured = Captured(lambda given, factor: given[min(given)] * factor)
    captured({"x": torch.zeros(2)}, 2)
    with pytest.raises(ValueError, match="a CUDA graph of"):
        captured(*other)


def test_what_cannot_be_recorded_is_said(monkeypatch):
    recording.on_a_cpu(monkeypatch)
    captured = Captured(lambda x: x * x.item())
    with pytest.raises(UsageError, match=r"--cuda_graphs: this model cannot be recorded \(a value"):
        captured(torch.ones(()))


@pytest.mark.parametrize(
    ("device", "processes", "message"),
    [("cpu", 1, "needs a CUDA device, and this run is on cpu"), ("cuda", 2, "one process, not 2")],
)
def test_where_there_is_no_graph(device, processes, message):
    accelerator = SimpleNamespace(device=torch.device(device), num_processes=processes)
    with pytest.raises(UsageError, match=message):
        check_capture(accelerator)


def test_settings_that_do_not_go_together():
    config = config_for("unused")
    for wrong in ({"mixed_precision": "fp16"}, {"gradient_checkpointing": True}):
        with pytest.raises(UsageError, match=f"cuda_graphs does not go with {min(wrong)}"):
            replace(config, cuda_graphs=True, **wrong)
