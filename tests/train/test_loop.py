import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator
from torch.utils._python_dispatch import TorchDispatchMode

from liftplace.common.errors import UsageError
from liftplace.data.batches import noisy_batches
from liftplace.models.config import TimestepSampling
from liftplace.train import (
    CheckpointError,
    ModelTrainer,
    NoiseProcess,
    Objective,
    TrainerSpec,
    TrainingInterrupted,
    fit,
    new_trainers,
)
from liftplace.train import checkpoint as checkpoint_module
from liftplace.train.features import choose_pairs, match_features
from liftplace.train.hooked_model import Teacher
from liftplace.train.loop import train_step
from liftplace.train.optimizer import fuse
from liftplace.train.run_folder import read_metrics
from tests.train.tiny import (
    Disturbed,
    assert_same_weights,
    checkpoints,
    config_for,
    encoder,
    process,
    run,
    spec_for,
    tiny_unet,
)


def press_ctrl_c(item):
    signal.raise_signal(signal.SIGINT)


def crash(item):
    raise MemoryError("as if the machine had failed")


def assert_same_run(trainers, others, folder, other_folder):
    for one, other in zip(trainers, others, strict=True):
        assert_same_weights(one.model, other.model)
        assert all(map(torch.equal, one.ema.shadow_params, other.ema.shadow_params))
    metrics = (folder / "metrics.jsonl").read_text()
    assert metrics == (other_folder / "metrics.jsonl").read_text()
    assert [line["step"] for line in map(json.loads, metrics.splitlines())] == [1, 2, 3, 4, 5, 6]


@pytest.fixture(scope="module")
def whole(tmp_path_factory, digits):
    """A run that nothing stopped."""
    folder = tmp_path_factory.mktemp("whole")
    return run(folder, digits), folder


@pytest.mark.parametrize(
    ("disturb", "error", "kept"),
    [
        (press_ctrl_c, TrainingInterrupted, ["checkpoint-3", "checkpoint-5"]),
        (crash, MemoryError, ["checkpoint-3"]),
    ],
)
def test_resumed_run_is_bit_for_bit_the_run_never_stopped(
    tmp_path, digits, whole, disturb, error, kept
):
    with pytest.raises(error):
        run(tmp_path, Disturbed(digits, 5, disturb))
    assert checkpoints(tmp_path) == kept
    torch.manual_seed(123)  # whatever the new process has drawn before
    trainers = run(tmp_path, digits, resume_from_checkpoint="latest")
    assert_same_run(trainers, whole[0], tmp_path, whole[1])
    assert checkpoints(tmp_path) == [*kept, "checkpoint-6"]


def test_run_stopped_before_its_first_checkpoint_starts_again(tmp_path, digits, whole):
    with pytest.raises(MemoryError):
        run(tmp_path, Disturbed(digits, 2, crash))
    trainers = run(tmp_path, digits, resume_from_checkpoint="latest")
    assert_same_run(trainers, whole[0], tmp_path, whole[1])


def test_pictures_and_checkpoints_do_not_change_the_run(tmp_path, digits, whole):
    settings = {"validation_steps": 2, "num_validation_images": 2, "num_inference_steps": 2}
    trainers = run(tmp_path, digits, checkpointing_steps=0, **settings)
    assert_same_run(trainers, whole[0], tmp_path, whole[1])
    assert checkpoints(tmp_path) == []
    pictures = sorted(path.name for path in (tmp_path / "samples").iterdir())
    assert pictures == [f"{name}-00000{n}.png" for name in ("none", "place") for n in (2, 4, 6)]


@pytest.mark.parametrize("name", ["place", "none"])
def test_trainers_side_by_side_are_as_alone(tmp_path, digits, whole, name):
    (alone,) = run(tmp_path, digits, losses=(name,))
    (together,) = (trainer for trainer in whole[0] if trainer.name == name)
    assert_same_weights(alone.model, together.model)
    lines = read_metrics(whole[1] / "metrics.jsonl")
    for ours, theirs in zip(read_metrics(tmp_path / "metrics.jsonl"), lines, strict=True):
        assert ours.pop("step") == theirs["step"]
        assert ours == {
            key.removeprefix(f"{name}/"): value
            for key, value in theirs.items()
            if key.startswith(f"{name}/")
        }


def test_metrics_are_complete(whole):
    line = read_metrics(whole[1] / "metrics.jsonl")[-1]
    common = ["loss", "task", "weighted/task", "gradient_norm", "learning_rate"]
    place = [*common, "kd", "coarse", "fine", "weight", "weighted/coarse", "weighted/fine"]
    expected = {"step", *(f"none/{key}" for key in common), *(f"place/{key}" for key in place)}
    assert line.keys() == expected


def test_full_disk_names_the_last_checkpoint(tmp_path, digits, monkeypatch):
    flush = checkpoint_module.flush

    def flush_once(folder):
        if folder.name != ".checkpoint-3.partial":
            raise OSError(28, "No space left on device")
        flush(folder)

    monkeypatch.setattr(checkpoint_module, "flush", flush_once)
    with pytest.raises(CheckpointError, match="No space left on device; .*checkpoint-3$"):
        run(tmp_path, digits)
    assert checkpoints(tmp_path) == ["checkpoint-3"]


KILLED_WHILE_SAVING = """
import os, signal, sys
from liftplace.data import load_dataset
from liftplace.train import checkpoint
from tests.train.tiny import run

flush = checkpoint.flush

def flush_or_die(folder):
    if folder.name == ".checkpoint-6.partial":
        os.kill(os.getpid(), signal.SIGKILL)
    flush(folder)

checkpoint.flush = flush_or_die
run(sys.argv[1], load_dataset("digits", resolution=8))
"""


def test_kill_while_saving_leaves_the_checkpoint_before(tmp_path, digits, whole):
    killed = subprocess.run(
        [sys.executable, "-c", KILLED_WHILE_SAVING, str(tmp_path)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
        capture_output=True,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert checkpoints(tmp_path) == [".checkpoint-6.partial", "checkpoint-3"]
    trainers = run(tmp_path, digits, resume_from_checkpoint="latest")
    assert_same_run(trainers, whole[0], tmp_path, whole[1])
    assert checkpoints(tmp_path) == ["checkpoint-3", "checkpoint-6"]


def test_tensorboard_gets_the_metrics(tmp_path, digits):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run(tmp_path, digits, losses=("none",), report_to="tensorboard", max_train_steps=2)
    events = EventAccumulator(str(tmp_path / "logs" / "liftplace")).Reload()
    losses = [(event.step, event.value) for event in events.Scalars("loss")]
    lines = read_metrics(tmp_path / "metrics.jsonl")
    assert losses == [(line["step"], pytest.approx(line["loss"])) for line in lines]


def test_folder_of_another_run_is_refused_and_left_alone(tmp_path, digits):
    run(tmp_path, digits, losses=("none",), max_train_steps=1)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(UsageError, match="holds another run"):
        run(tmp_path, digits, losses=("none",), max_train_steps=1)
    with pytest.raises(UsageError, match="holds another run: its seed is 0, not 1"):
        run(tmp_path, digits, losses=("none",), resume_from_checkpoint="latest", seed=1)
    with pytest.raises(UsageError, match=r"holds the models \['none'\], not \['mse'\]"):
        run(tmp_path, digits, losses=("mse",), max_train_steps=1, resume_from_checkpoint="latest")
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


def test_checkpoint_beyond_the_end_is_refused(tmp_path, digits):
    run(tmp_path, digits, losses=("none",), max_train_steps=2)
    with pytest.raises(UsageError, match="checkpoint-2 is beyond --max_train_steps 1"):
        run(tmp_path, digits, losses=("none",), max_train_steps=1, resume_from_checkpoint="latest")


def test_run_can_be_prolonged(tmp_path, digits):
    settings = {"losses": ("none",), "lr_scheduler": "constant"}
    run(tmp_path / "a", digits, max_train_steps=2, **settings)
    (longer,) = run(
        tmp_path / "a", digits, max_train_steps=4, resume_from_checkpoint="latest", **settings
    )
    (whole_run,) = run(tmp_path / "b", digits, max_train_steps=4, **settings)
    assert_same_weights(longer.model, whole_run.model)


def test_what_does_not_go_together_is_refused(tmp_path, digits):
    config = config_for(tmp_path / "run")
    pair = {"dataset": digits, "encoder": encoder(), "process": process(), "config": config}
    with pytest.raises(ValueError, match="models need different names, got"):
        new_trainers([spec_for(config), spec_for(config)], config)
    with pytest.raises(ValueError, match="teacher is None"):
        fit(new_trainers([spec_for(config)], config), **pair)
    with pytest.raises(ValueError, match="takes one model"):
        halves = replace(config, mixed_precision="fp16")
        new_trainers([spec_for(config, "mse"), spec_for(config)], halves)
    assert not (tmp_path / "run").exists()


EVALUATED = {
    "evaluation_steps": 2,
    "num_evaluation_samples": 12,
    "num_inference_steps": 1,
    "metric_for_best_model": "fd",
    "reference_dir": "digits",
}


def test_resumed_run_knows_the_best_so_far(tmp_path, digits):
    folder, resumed = tmp_path / "whole", tmp_path / "resumed"
    run(folder, digits, **EVALUATED)
    with pytest.raises(MemoryError):
        run(resumed, Disturbed(digits, 6, crash), **EVALUATED)
    run(resumed, digits, resume_from_checkpoint="latest", **EVALUATED)
    metrics = read_metrics(resumed / "metrics.jsonl")
    assert metrics == read_metrics(folder / "metrics.jsonl")
    for name in ("place", "none"):
        values = {
            line["step"]: line[f"{name}/evaluation/FD-Lite0"]
            for line in metrics
            if line["step"] % 2 == 0
        }
        assert len(values) == 3
        for each in (folder, resumed):
            best = json.loads((each / "best" / name / "best.json").read_text())
            assert best["step"] == min(values, key=values.get)
            assert best["value"] == values[best["step"]]
    assert not list((resumed / "best").glob(".*"))


CUDA = SimpleNamespace(device=torch.device("cuda"), mixed_precision="no")
READS = (
    torch.ops.aten._local_scalar_dense,
    torch.ops.aten.nonzero,
    torch.ops.aten.equal,
    torch.ops.aten.is_nonzero,
)


class Reads(TorchDispatchMode):
    """Notes every operation after which the host waits for a GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function.overloadpacket in READS:
            self.found.append(function)
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("prediction_type", "timesteps"),
    [
        ("epsilon", TimestepSampling(snr_gamma=5.0)),
        ("v_prediction", TimestepSampling(antithetic_timesteps=True)),
        ("flow", TimestepSampling()),
        ("flow", TimestepSampling(weighting_scheme="sigma_sqrt")),
    ],
)
def test_a_step_reads_nothing(digits, prediction_type, timesteps):
    config = config_for("unused", dataset_on_device="always")
    accelerator = Accelerator(step_scheduler_with_optimizer=False)
    student, model = tiny_unet(1, block_out_channels=(4, 4), dropout=0.1), tiny_unet()
    match = match_features(student, model, choose_pairs(student, model), seed=0, always=False)
    spec = TrainerSpec(student, Objective("place", feature_weight=0.1), config, match=match)
    trainer = ModelTrainer(spec, accelerator)
    fuse(trainer.optimizer.optimizer, CUDA)  # the one that is not reads its count of steps
    teacher = Teacher(model, accelerator.device, blocks=trainer.teacher_blocks)
    process = NoiseProcess.new(prediction_type, timesteps=timesteps)
    batches = noisy_batches(digits, encoder(), process, config, accelerator, 0)
    train_step([trainer], batches, teacher, config, 1)
    with Reads() as reads:
        values = train_step([trainer], batches, teacher, config, 2)
        assert reads.found == []
        assert values["student"]["loss"].item() > 0
    assert len(reads.found) == 1  # which shows that one would be seen
