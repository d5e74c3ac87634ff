"""Training steps on a GPU: nothing waits for it, and recorded steps learn what eager ones learn."""

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from liftplace.data import load_dataset
from liftplace.data.batches import noisy_batches
from liftplace.train import ModelTrainer, NoiseProcess, Objective, TrainerSpec, fit, new_trainers
from liftplace.train.features import NO_FEATURES, choose_pairs, match_features
from liftplace.train.hooked_model import Teacher
from liftplace.train.loop import train_step
from liftplace.train.run_folder import read_metrics
from tests.train.tiny import RESOLUTION, config_for, encoder, process, spec_for, tiny_unet

pytestmark = pytest.mark.gpu
OBJECTIVES = {
    "place": Objective("place"),
    "lift": Objective("lift", feature_weight=0.1),
    "ramp": Objective("mse", kd_weight_schedule="cosine"),
}


@pytest.fixture(autouse=True)
def _same_kernels(monkeypatch):
    """cuDNN may add up in any order, and the two would drift apart."""
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(scope="module")
def digits():
    return load_dataset("digits", resolution=RESOLUTION)


def run(digits, **settings):
    """The parts of a run with all trainers: `step(number)`, and the trainers."""
    config = config_for("unused", max_train_steps=40, **settings)
    accelerator = Accelerator(
        mixed_precision=config.mixed_precision, step_scheduler_with_optimizer=False
    )
    model = tiny_unet()
    trainers = []
    for name, objective in OBJECTIVES.items():
        student = tiny_unet(seed=1, block_out_channels=(4, 4), dropout=0.1)
        match = NO_FEATURES
        if objective.has("feature"):
            pairs = choose_pairs(student, model)
            match = match_features(student, model, pairs, seed=0, always=False)
        spec = TrainerSpec(student, objective, config, name, match=match)
        trainers.append(ModelTrainer(spec, accelerator))
    teacher = Teacher(
        model, accelerator.device, config.mixed_precision,
        [block for trainer in trainers for block in trainer.teacher_blocks],
        cuda_graphs=config.cuda_graphs,
    )  # fmt: skip
    pixels = encoder().to(accelerator.device)
    batches = noisy_batches(digits, pixels, NoiseProcess.new("flow"), config, accelerator, 0)
    return lambda step: train_step(trainers, batches, teacher, config, step), trainers


@pytest.mark.parametrize("data", ["always", "never"])
@pytest.mark.parametrize("precision", ["no", "bf16"])
@pytest.mark.parametrize("cuda_graphs", [False, True])
def test_no_step_waits_for_the_gpu(digits, cuda_graphs, precision, data):
    settings = {"dataset_on_device": data, "mixed_precision": precision}
    step, trainers = run(digits, cuda_graphs=cuda_graphs, **settings)
    for number in (1, 2, 3):  # compile kernels, record, and copy what is copied once
        step(number)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for number in (4, 5, 6):
            step(number)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for trainer in trainers:
        trainer.check_finite()


def test_adamw_is_fused(digits):
    _, trainers = run(digits)
    assert all(trainer.optimizer.param_groups[0]["fused"] for trainer in trainers)


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_20_recorded_steps_are_the_eager_ones(digits, precision, parts):
    """Up to what rounding makes of PLACE's groups and of a slope over the kink at 1."""
    settings = {"mixed_precision": precision, "gradient_accumulation_steps": parts}
    start = run(digits, **settings)[1]
    before = [[weight.detach().clone() for weight in one.parameters] for one in start]
    found = {}
    for cuda_graphs in (False, True):
        step, trainers = run(digits, cuda_graphs=cuda_graphs, **settings)
        first = step(1)
        for number in range(2, 21):
            step(number)
        found[cuda_graphs] = trainers, first
    for name in OBJECTIVES:
        torch.testing.assert_close(found[True][1][name], found[False][1][name], rtol=1e-3, atol=0)
    for recorded, eager, was in zip(found[True][0], found[False][0], before, strict=True):
        apart = moved = 0.0
        for one, other, old in zip(recorded.parameters, eager.parameters, was, strict=True):
            apart += (one - other).square().sum().item()
            moved += (other - old).square().sum().item()
        assert apart < 0.05**2 * moved, eager.name
        averages = zip(recorded.ema.shadow_params, eager.ema.shadow_params, strict=True)
        assert sum((one - other).square().sum().item() for one, other in averages) < 0.05**2 * moved


def test_a_run_with_recorded_steps(digits, tmp_path):
    """Through pictures, gradient shares, a checkpoint and a resumption."""
    settings = {"gradient_share_steps": 2, "validation_steps": 3, "num_inference_steps": 2}
    lines = {}
    for name, changes in {"eager": {}, "recorded": {"cuda_graphs": True}}.items():
        folder = tmp_path / name
        for steps in (3, 6):
            config = config_for(
                folder, max_train_steps=steps, lr_scheduler="constant",
                resume_from_checkpoint="latest", num_validation_images=2, **settings, **changes,
            )  # fmt: skip
            specs = [spec_for(config, loss) for loss in ("place", "none")]
            trainers = new_trainers(specs, config)
            fit(
                trainers, dataset=digits, encoder=encoder(), process=process(), config=config,
                teacher=tiny_unet(),
            )  # fmt: skip
            AcceleratorState._reset_state(reset_partial_state=True)
        lines[name] = read_metrics(folder / "metrics.jsonl")
    assert [line["step"] for line in lines["recorded"]] == [1, 2, 3, 4, 5, 6]
    for one, other in zip(lines["recorded"], lines["eager"], strict=True):
        assert one.keys() == other.keys()
        for name in ("place/loss", "none/loss"):
            assert one[name] == pytest.approx(other[name], rel=0.02)


def test_images_on_the_gpu_give_the_same_batches(digits):
    config = {choice: config_for("unused", dataset_on_device=choice) for choice in
              ("always", "never")}  # fmt: skip
    accelerator = Accelerator()
    pixels = encoder().to(accelerator.device)
    resident, loaded = (
        list(noisy_batches(digits, pixels, process(), each, accelerator, 0))
        for each in config.values()
    )
    assert len(resident) == len(loaded) == 12
    for one, other in zip(resident, loaded, strict=True):
        assert torch.equal(one.noisy, other.noisy) and torch.equal(one.target, other.target)
