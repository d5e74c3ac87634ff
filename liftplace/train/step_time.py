"""How long a step takes, measured before the run (`--dry_run`)."""

import time
from dataclasses import replace

import torch
from torch import nn
from torch.utils.data import Dataset

from liftplace.data.batches import noisy_batches
from liftplace.data.encoder import Encoder
from liftplace.models.loading import DTYPES
from liftplace.models.noise import NoiseProcess
from liftplace.train.loop import train_step
from liftplace.train.run_config import RunConfig
from liftplace.train.setup import new_trainers, prepare_teacher
from liftplace.train.trainer import TrainerSpec

LONG = 5.0  # seconds; a step that takes longer is measured with one image
STEPS = 3  # that are measured, after one that is not


def seconds_a_step(
    spec: TrainerSpec,
    *,
    dataset: Dataset,
    encoder: Encoder,
    process: NoiseProcess,
    config: RunConfig,
    teacher: nn.Module | None = None,
) -> float:
    """Seconds of an optimiser step: images read, teacher, student and optimiser, without compile
    and cuda_graphs. Trains the model a few steps; nothing is written.

    On a CPU a step of more than some seconds is that of one image, times the images.

    Raises:
        torch.OutOfMemoryError: the GPU cannot hold a step.
    """
    config = replace(config, compile=False, cuda_graphs=False, dataset_on_device="never")
    (trainer,) = new_trainers([replace(spec, config=config)], config)
    teacher = prepare_teacher(teacher, [trainer], config)
    accelerator = trainer.accelerator
    encoder.to(accelerator.device, DTYPES[accelerator.mixed_precision])

    def measure(**batch_size) -> float:
        short = replace(config, **batch_size, max_train_steps=1 + STEPS)
        batches = noisy_batches(dataset, encoder, process, short, accelerator, 0)
        for step in range(1, 2 + STEPS):
            train_step([trainer], batches, teacher, short, step)
            if accelerator.device.type == "cuda":
                torch.cuda.synchronize()
            if step == 1:  # what is set up once
                start = time.monotonic()
        return (time.monotonic() - start) / STEPS

    if accelerator.device.type == "cpu":
        images = config.train_batch_size * config.gradient_accumulation_steps
        whole = images * measure(train_batch_size=1, gradient_accumulation_steps=1)
        if whole > LONG:
            return whole
    return measure()
