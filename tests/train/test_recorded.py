"""What is recorded is what the eager step does: on a CPU by tests.train.recording, on a GPU by
tests/gpu/test_training.py."""

import pytest
import torch
from accelerate import Accelerator

from liftplace.data.batches import noisy_batches
from liftplace.train import Learner, NoiseProcess, Objective
from liftplace.train.features import NOTHING, choose_pairs, match_features
from liftplace.train.step import train_step
from liftplace.train.teacher import Teacher
from tests.train import recording
from tests.train.tiny import assert_same_weights, config_for, encoder, tiny_unet

OBJECTIVES = {
    "place": Objective("place", impl="reference"),
    "no KD": Objective("none"),
    "features": Objective("mse", feature_weight=0.1),
    "ramp of w": Objective("place", impl="reference", weight="cosine"),
    "noisy": Objective("lift", impl="reference", kd_min_timestep=500.0),
    "schedule": Objective("mse", kd_weight_schedule="linear", task_weight_schedule="cosine"),
}


def trained(digits, objectives, *, cuda_graphs, steps=4, **settings):
    """The learners after some steps, and the metrics of each step."""
    config = config_for("unused", cuda_graphs=cuda_graphs, max_train_steps=steps, **settings)
    accelerator = Accelerator(step_scheduler_with_optimizer=False)
    model = tiny_unet()
    learners, blocks = [], []
    for name, objective in objectives.items():
        student = tiny_unet(seed=1, block_out_channels=(4, 4), dropout=0.2)
        match = NOTHING
        if objective.has("feature"):
            pairs = choose_pairs(student, model)
            match = match_features(student, model, pairs, seed=0, always=False)
        learners.append(Learner(student, objective, config, name, match=match))
        learners[-1].prepare(accelerator)
        blocks += learners[-1].teacher_blocks
    teacher = Teacher(model, torch.device("cpu"), blocks=blocks, cuda_graphs=cuda_graphs)
    process = NoiseProcess.new("flow")
    batches = noisy_batches(digits, encoder(), process, config, accelerator, 0)
    metrics = [
        train_step(learners, batches, teacher, config, step, share_out=step == 3)
        for step in range(1, steps + 1)
    ]
    return learners, metrics


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
        assert_same_weights(found.trainee, eager.trainee)


def test_learners_share_an_answer_that_is_overwritten(digits, monkeypatch):
    objectives = {name: OBJECTIVES[name] for name in ("place", "features")}
    expected, _ = trained(digits, objectives, cuda_graphs=False)
    recording.on_a_cpu(monkeypatch)
    found, _ = trained(digits, objectives, cuda_graphs=True)
    for one, other in zip(found, expected, strict=True):
        assert_same_weights(one.trainee, other.trainee)
