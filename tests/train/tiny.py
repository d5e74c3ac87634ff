"""Tiny models and short runs that the tests of the trainer share."""

from dataclasses import replace
from pathlib import Path

import torch
from diffusers import UNet2DModel
from torch.utils.data import Dataset

from liftplace.data.encoder import Encoder
from liftplace.models.loading import LoadedModel
from liftplace.train import (
    DistillConfig,
    NoiseProcess,
    Objective,
    TrainerSpec,
    fit,
    new_trainers,
)

RESOLUTION = 8
IMAGES_A_STEP = 8  # of `config_for`


def tiny_unet(seed: int = 0, **changes) -> UNet2DModel:
    config = {
        "sample_size": RESOLUTION,
        "in_channels": 1,
        "out_channels": 1,
        "block_out_channels": (8, 8),
        "layers_per_block": 1,
        "norm_num_groups": 4,
        "down_block_types": ("DownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "UpBlock2D"),
        "add_attention": False,
    }
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return UNet2DModel(**config | changes)


def config_for(folder, **changes) -> DistillConfig:
    """Six short steps of everything that has state: EMA, schedule, flips, accumulation."""
    standard = DistillConfig(
        output_dir=str(folder),
        dataset_name="digits",
        pretrained_teacher_name_or_path="teacher",
        student_block_out_channels=(4, 4),
        train_batch_size=4,
        gradient_accumulation_steps=2,
        random_flip=True,
        max_train_steps=6,
        learning_rate=1e-2,
        lr_warmup_steps=2,
        use_ema=True,
        logging_steps=1,
        checkpointing_steps=3,
        report_to="none",
    )
    return replace(standard, **changes)


def spec_for(config: DistillConfig, loss: str = "place", **changes) -> TrainerSpec:
    """A student with dropout, so that its random numbers count too."""
    model = tiny_unet(seed=1, block_out_channels=(4, 4), dropout=0.1)
    return TrainerSpec(model, Objective(loss, **changes), config, name=loss)


def encoder() -> Encoder:
    """Of a model of pixels."""
    return Encoder(LoadedModel(tiny_unet(), None, "no folder"))


def process() -> NoiseProcess:
    return NoiseProcess.new("epsilon")


def assert_same_weights(one, other) -> None:
    weights = other.state_dict()
    for name, weight in one.state_dict().items():
        assert torch.equal(weight, weights[name]), name


class Disturbed(Dataset):
    """The digits; before the first image of a step something happens."""

    def __init__(self, images, step, disturb):
        self.images, self.step, self.disturb = images, step, disturb
        self.taken = 0

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        self.taken += 1
        item = self.images[index]
        if self.taken == (self.step - 1) * IMAGES_A_STEP + 1:
            return self.disturb(item) or item
        return item


def run(folder, dataset, losses=("place", "none"), teacher=None, **settings):
    """The trainers after a whole run of `fit`."""
    config = config_for(folder, **settings)
    trainers = new_trainers([spec_for(config, loss) for loss in losses], config)
    fit(
        trainers,
        dataset=dataset,
        encoder=encoder(),
        process=process(),
        config=config,
        teacher=teacher or tiny_unet(),
    )
    return trainers


def checkpoints(folder):
    return sorted(path.name for path in Path(folder).glob("*checkpoint-*"))
