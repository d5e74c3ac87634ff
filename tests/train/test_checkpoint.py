import errno
import os

import pytest
import torch
from accelerate import Accelerator

from liftplace.common.errors import UsageError
from liftplace.train import CheckpointError
from liftplace.train import checkpoint as checkpoint_module
from liftplace.train.checkpoint import STATE, Checkpoints
from liftplace.train.trainer import ModelTrainer
from tests.train.tiny import assert_same_weights, config_for, spec_for


def started(folder, losses=("place", "none")):
    accelerator = Accelerator(step_scheduler_with_optimizer=False)
    specs = [spec_for(config_for(folder), loss) for loss in losses]
    return accelerator, [ModelTrainer(spec, accelerator) for spec in specs]


def change(trainer, value):
    """Give everything that a checkpoint holds a new value."""
    for weight in trainer.parameters:
        weight.grad = torch.full_like(weight, value)
    trainer.optimizer.step()
    trainer.schedule.step()
    trainer.optimizer.zero_grad()
    trainer.ema.step(trainer.parameters)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_everything_comes_back(tmp_path):
    accelerator, trainers = started(tmp_path)
    for value, trainer in enumerate(trainers, 1):
        change(trainer, value)
        change(trainer, -value)
    Checkpoints(tmp_path).save(accelerator, trainers, 2)
    other_accelerator, others = started(tmp_path)
    assert Checkpoints(tmp_path).load(tmp_path / "checkpoint-2", other_accelerator, others) == 2
    for one, other in zip(trainers, others, strict=True):
        for trainer in (one, other):
            change(trainer, 0.5)
        assert_same_weights(one.model, other.model)
        assert one.schedule.get_last_lr() == other.schedule.get_last_lr()
        assert one.ema.optimization_step == other.ema.optimization_step == 3
        assert all(map(torch.equal, one.ema.shadow_params, other.ema.shadow_params))


def test_oldest_beyond_the_limit_are_deleted(tmp_path):
    accelerator, trainers = started(tmp_path)
    checkpoints = Checkpoints(tmp_path, limit=2)
    for step in (9, 10, 11):
        checkpoints.save(accelerator, trainers, step)
    assert names(tmp_path) == ["checkpoint-10", "checkpoint-11"]
    assert checkpoints.latest() == tmp_path / "checkpoint-11"


def full_disk(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("moment", ["save_file", "flush", "_write_own_state"])
def test_full_disk_leaves_the_last_one_and_no_rest(tmp_path, monkeypatch, moment):
    accelerator, trainers = started(tmp_path)
    checkpoints = Checkpoints(tmp_path, limit=1)
    checkpoints.save(accelerator, trainers, 1)
    monkeypatch.setattr(checkpoint_module, moment, full_disk)
    with pytest.raises(CheckpointError, match="No space left.*last complete .*checkpoint-1$"):
        checkpoints.save(accelerator, trainers, 2)
    assert names(tmp_path) == ["checkpoint-1"]
    assert checkpoints.load(checkpoints.latest(), accelerator, trainers) == 1


def test_incomplete_ones_are_ignored_and_cleared_away(tmp_path):
    accelerator, trainers = started(tmp_path)
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(accelerator, trainers, 1)
    (tmp_path / ".checkpoint-2.partial").mkdir()
    (tmp_path / "checkpoint-3").mkdir()  # without state.json, as no writer of ours leaves it
    assert checkpoints.latest() == tmp_path / "checkpoint-1"
    checkpoints.save(accelerator, trainers, 4)
    assert names(tmp_path) == ["checkpoint-1", "checkpoint-3", "checkpoint-4"]


def test_finding_one_by_name(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.find(None) is None
    assert checkpoints.find("latest") is None
    accelerator, trainers = started(tmp_path)
    for step in (1, 2):
        checkpoints.save(accelerator, trainers, step)
    newest = tmp_path / "checkpoint-2"
    for name in ("latest", "checkpoint-2", str(newest)):
        assert checkpoints.find(name) == newest
    with pytest.raises(UsageError, match="checkpoint-2 is later; move it away first"):
        checkpoints.find("checkpoint-1")
    for name in ("checkpoint-7", str(tmp_path / "other" / "checkpoint-2")):
        with pytest.raises(UsageError, match="has no checkpoint"):
            checkpoints.find(name)


def test_checkpoint_of_other_trainers_is_refused(tmp_path):
    accelerator, trainers = started(tmp_path)
    Checkpoints(tmp_path).save(accelerator, trainers, 1)
    accelerator, trainers = started(tmp_path, losses=("lift",))
    with pytest.raises(UsageError, match=r"holds the models \['place', 'none'\], not \['lift'\]"):
        Checkpoints(tmp_path).load(tmp_path / "checkpoint-1", accelerator, trainers)


@pytest.mark.parametrize("file", [STATE, "model.safetensors", "optimizer.bin"])
def test_damaged_checkpoint(tmp_path, file):
    accelerator, trainers = started(tmp_path)
    Checkpoints(tmp_path).save(accelerator, trainers, 1)
    (tmp_path / "checkpoint-1" / file).write_bytes(b"\0" * 20)
    with pytest.raises(CheckpointError, match="cannot load .*checkpoint-1"):
        Checkpoints(tmp_path).load(tmp_path / "checkpoint-1", accelerator, trainers)
