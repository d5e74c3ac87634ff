"""What a run needs before its first step: the accelerator, the trainers on it, the teacher."""

from collections.abc import Sequence
from pathlib import Path

from accelerate import Accelerator
from accelerate.utils import GradientAccumulationPlugin, ProjectConfiguration
from torch import nn

from liftplace.train.hooked_model import Teacher
from liftplace.train.run_config import RunConfig
from liftplace.train.run_folder import METRICS, JsonLinesTracker
from liftplace.train.trainer import ModelTrainer, TrainerSpec


def new_trainers(
    specs: Sequence[TrainerSpec], config: RunConfig, trainer_class: type = ModelTrainer
) -> list[ModelTrainer]:
    """Trainers for `fit`, side by side on one accelerator.

    Args:
        specs: of each; they may differ in the settings of optimiser, schedule and EMA.
        config: of the run.
        trainer_class: `ModelTrainer` or what is made of it.

    Raises:
        ValueError: two of the same name, or several with float16.
        UsageError: settings that do not go with the device or with several processes.
    """
    names = [spec.name for spec in specs]
    if len(set(names)) < len(names):
        raise ValueError(f"models need different names, got {names}")
    if len(specs) > 1 and config.mixed_precision == "fp16":
        # One gradient scaler serves all models: one's overflow would rescale the others.
        raise ValueError("mixed_precision='fp16' takes one model; use 'bf16' or 'no' for more")
    accelerator = _new_accelerator(config)
    return [trainer_class(spec, accelerator) for spec in specs]


def _new_accelerator(config: RunConfig) -> Accelerator:
    folder = Path(config.output_dir)
    trackers = [JsonLinesTracker(folder / METRICS)]
    if config.report_to != "none":
        trackers.append(config.report_to)
    accelerator = Accelerator(
        mixed_precision=config.mixed_precision,
        # Given, because accelerate launch hands on a number that would divide the losses once more.
        gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),
        log_with=trackers,
        project_config=ProjectConfiguration(folder, logging_dir=folder / config.logging_dir),
        step_scheduler_with_optimizer=False,  # the schedule counts optimiser steps of the run
    )
    if accelerator.state.deepspeed_plugin is not None:
        accelerator.state.deepspeed_plugin.deepspeed_config |= {
            "train_micro_batch_size_per_gpu": config.train_batch_size,
            "gradient_clipping": config.max_grad_norm,
            "zero_allow_untested_optimizer": True,
        }
    return accelerator


def prepare_teacher(
    model: nn.Module | None, trainers: list[ModelTrainer], config: RunConfig
) -> Teacher | None:
    """The teacher as `train_step` calls it: frozen, on the trainers' device.

    Raises:
        ValueError: no model is given, and an objective needs one.
    """
    if model is None:
        if any(trainer.objective.needs_teacher for trainer in trainers):
            raise ValueError("teacher is None, but an objective compares with one")
        return None
    device = trainers[0].accelerator.device
    blocks = [block for trainer in trainers for block in trainer.teacher_blocks]
    precision = config.mixed_precision
    return Teacher(model, device, precision, blocks, config.compile, config.cuda_graphs)
