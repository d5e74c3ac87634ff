"""A step reads nothing on the host: on a CPU that shows as values which become Python numbers."""

from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator
from torch.utils._python_dispatch import TorchDispatchMode

from liftplace.data.batches import noisy_batches
from liftplace.models.config import TimestepSampling
from liftplace.train import Learner, NoiseProcess, Objective
from liftplace.train.features import choose_pairs, match_features
from liftplace.train.optimizer import fuse
from liftplace.train.step import train_step
from liftplace.train.teacher import Teacher
from tests.train.tiny import config_for, encoder, tiny_unet

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
    learner = Learner(student, Objective("place", feature_weight=0.1), config, match=match)
    learner.prepare(accelerator)
    fuse(learner.optimizer.optimizer, CUDA)  # the one that is not reads its count of steps
    teacher = Teacher(model, accelerator.device, blocks=learner.teacher_blocks)
    process = NoiseProcess.new(prediction_type, timesteps=timesteps)
    batches = noisy_batches(digits, encoder(), process, config, accelerator, 0)
    train_step([learner], batches, teacher, config, 1)
    with Reads() as reads:
        values = train_step([learner], batches, teacher, config, 2)
        assert reads.found == []
        assert values["student"]["loss"].item() > 0
    assert len(reads.found) == 1  # which shows that one would be seen
