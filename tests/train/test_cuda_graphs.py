"""CUDA graphs, of a function and of a step: on a CPU by tests.train.recording, on a GPU by
tests/gpu/test_training.py."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator

from liftplace.common.errors import UsageError
from liftplace.data.batches import noisy_batches
from liftplace.train import ModelTrainer, NoiseProcess, Objective, TrainerSpec, cuda_graphs
from liftplace.train.cuda_graphs import CapturedFunction, check_cuda_graphs
from liftplace.train.features import NO_FEATURES, choose_pairs, match_features
from liftplace.train.hooked_model import Teacher
from liftplace.train.loop import train_step
from tests.train import recording
from tests.train.tiny import assert_same_weights, config_for, encoder, tiny_unet


def test_python_runs_once_and_the_result_is_overwritten(monkeypatch):
    recording.on_a_cpu(monkeypatch)
    calls = []

    def double(given, factor):
        calls.append(factor)
        return {"twice": given["x"] * factor}

    captured = CapturedFunction(double)
    first = captured({"x": torch.tensor([1.0, 2.0])}, 2)["twice"]
    assert first.tolist() == [2, 4]
    second = captured({"x": torch.tensor([5.0, -1.0])}, 2)["twice"]
    assert second is first and first.tolist() == [10, -2]
    assert len(calls) == cuda_graphs.WARM_UPS + 1


@pytest.mark.parametrize(
    "other",
    [
        ({"x": torch.zeros(3)}, 2),
        ({"y": torch.zeros(2)}, 2),
        ({"x": torch.zeros(2)}, 3),
        ({"x": torch.zeros(2, dtype=torch.float64)}, 2),
    ],
)
def test_arguments_of_another_kind_are_refused(monkeypatch, other):
    recording.on_a_cpu(monkeypatch)
    captured = CapturedFunction(lambda given, factor: given[min(given)] * factor)
    captured({"x": torch.zeros(2)}, 2)
    with pytest.raises(ValueError, match="a CUDA graph of"):
        captured(*other)


def test_what_cannot_be_recorded_is_said(monkeypatch):
    recording.on_a_cpu(monkeypatch)
    captured = CapturedFunction(lambda x: x * x.item())
    with pytest.raises(UsageError, match=r"--cuda_graphs: this model cannot be recorded \(a value"):
        captured(torch.ones(()))


@pytest.mark.parametrize(
    ("device", "processes", "message"),
    [("cpu", 1, "needs a CUDA device, and this run is on cpu"), ("cuda", 2, "one process, not 2")],
)
def test_where_there_is_no_graph(device, processes, message):
    accelerator = SimpleNamespace(device=torch.device(device), num_processes=processes)
    with pytest.raises(UsageError, match=message):
        check_cuda_graphs(accelerator)


def test_settings_that_do_not_go_together():
    config = config_for("unused")
    for wrong in ({"mixed_precision": "fp16"}, {"gradient_checkpointing": True}):
        with pytest.raises(UsageError, match=f"cuda_graphs does not go with {min(wrong)}"):
            replace(config, cuda_graphs=True, **wrong)


OBJECTIVES = {
    "place": Objective("place", impl="reference"),
    "no KD": Objective("none"),
    "features": Objective("mse", feature_weight=0.1),
    "ramp of w": Objective("place", impl="reference", weight="cosine"),
    "noisy": Objective("lift", impl="reference", kd_min_timestep=500.0),
    "schedule": Objective("mse", kd_weight_schedule="linear", task_weight_schedule="cosine"),
}


def trained(digits, objectives, *, cuda_graphs, steps=4, **settings):
    """The trainers after some steps, and the metrics of each step."""
    config = config_for("unused", cuda_graphs=cuda_graphs, max_train_steps=steps, **settings)
    accelerator = Accelerator(step_scheduler_with_optimizer=False)
    model = tiny_unet()
    trainers, blocks = [], []
    for name, objective in objectives.items():
        student = tiny_unet(seed=1, block_out_channels=(4, 4), dropout=0.2)
        match = NO_FEATURES
        if objective.has("feature"):
            pairs = choose_pairs(student, model)
            match = match_features(student, model, pairs, seed=0, always=False)
        spec = TrainerSpec(student, objective, config, name, match=match)
        trainers.append(ModelTrainer(spec, accelerator))
        blocks += trainers[-1].teacher_blocks
    teacher = Teacher(model, torch.device("cpu"), blocks=blocks, cuda_graphs=cuda_graphs)
    process = NoiseProcess.new("flow")
    batches = noisy_batches(digits, encoder(), process, config, accelerator, 0)
    metrics = [
        train_step(trainers, batches, teacher, config, step, measure_gradients=step == 3)
        for step in range(1, steps + 1)
    ]
    return trainers, metrics


@pytest.mark.parametrize(
    ("name", "parts"), [*((name, 1) for name in OBJECTIVES), ("features", 2), ("ramp of w", 2)]
)
def test_a_recorded_step_is_the_eager_one(digits, monkeypatch, name, parts):
    settings = {"gradient_accumulation_steps": parts}
    objectives = {name: OBJECTIVES[name]}
    (eager,), expected = trained(digits, objectives, cuda_graphs=False, **settings)
    recording.on_a_cpu(monkeypatch)
    (found,), metrics = trained(digits, objectives, cuda_graphs=True, **settings)
    # A schedule's weight is rounded to float32, which AdamW's first steps make more of.
    torch.testing.assert_close(metrics, expected, rtol=3e-3, atol=1e-4)
    if not OBJECTIVES[name].is_scheduled:
        assert_same_weights(found.module, eager.module)


def test_trainers_share_an_answer_that_is_overwritten(digits, monkeypatch):
    objectives = {name: OBJECTIVES[name] for name in ("place", "features")}
    expected, _ = trained(digits, objectives, cuda_graphs=False)
    recording.on_a_cpu(monkeypatch)
    found, _ = trained(digits, objectives, cuda_graphs=True)
    for one, other in zip(found, expected, strict=True):
        assert_same_weights(one.module, other.module)
