"""The two commands that train: from scratch, and from a teacher."""

import math
from dataclasses import fields

import torch
from diffusers import UNet2DModel

from liftplace.data import load_dataset
from liftplace.errors import UsageError
from liftplace.students.shrink import shrink
from liftplace.train.config import DistillConfig, RunConfig, TrainConfig
from liftplace.train.learner import Learner
from liftplace.train.loop import fit
from liftplace.train.models import (
    LoadedModel,
    check_images,
    check_pair,
    load_model,
    read_model_config,
)
from liftplace.train.objective import Objective
from liftplace.train.process import NoiseProcess, Timesteps
from liftplace.train.randomness import derive_seed
from liftplace.train.run_folder import check_output_dir


def train(config: TrainConfig) -> None:
    """Train a model from scratch; `config.output_dir` becomes a diffusers pipeline.

    Raises: as `liftplace.train.fit`, and UsageError for whatever is wrong with the settings.
    """
    config.check_complete()
    check_output_dir(config)
    process = NoiseProcess.new(
        config.prediction_type, config.ddpm_num_steps, config.ddpm_beta_schedule,
        timesteps_of(config),
    )  # fmt: skip
    given = None
    if config.model_config_name_or_path is not None:
        given = read_model_config(config.model_config_name_or_path)
    resolution = config.resolution or (given and given["sample_size"])
    if resolution is None:
        raise UsageError("--resolution is missing: the height and width of the images")
    dataset = _load_images(config, resolution)
    model = _new_model(config, given, dataset.channels, resolution)
    check_images(model.config, dataset.channels, resolution, config.model_config_name_or_path)
    learner = Learner(model, Objective("none"), config, name="model")
    fit([learner], dataset=dataset, process=process, config=config)
    learner.save(config.output_dir, process)


def distill(config: DistillConfig) -> None:
    """Distil a student from a teacher; `config.output_dir` becomes a diffusers pipeline.

    Raises: as `liftplace.train.fit`, and UsageError for whatever is wrong with the settings.
    """
    config.check_complete()
    check_output_dir(config)
    teacher = load_model(config.pretrained_teacher_name_or_path)
    student = _student(config, teacher)
    check_pair(student, teacher)
    resolution = config.resolution or teacher.model.config.sample_size
    dataset = _load_images(config, resolution)
    check_images(teacher.model.config, dataset.channels, resolution, teacher.folder)
    process = teacher.process(timesteps_of(config))
    objective = objective_of(config, teacher.model.config.out_channels, resolution)
    learner = Learner(student.model, objective, config)
    fit(
        [learner],
        dataset=dataset,
        process=process,
        config=config,
        teacher=teacher.model if objective.needs_teacher else None,
        description="Distilling",
    )
    learner.save(config.output_dir, process)


def timesteps_of(config: RunConfig) -> Timesteps:
    """The part of the settings that the noise process draws by."""
    return Timesteps(**{field.name: getattr(config, field.name) for field in fields(Timesteps)})


def objective_of(config: DistillConfig, channels: int, resolution: int) -> Objective:
    """The objective that the settings and their preset describe, for outputs of this size."""
    same = {field.name for field in fields(Objective)} & {field.name for field in fields(config)}
    options = {name: getattr(config, name) for name in same}
    standard = Objective()
    for name in ("task_weight", "kd_weight", "norm", "reduction"):
        options[name] = config.option(name, getattr(standard, name))
    row = resolution**2 * (channels if config.scope == "sample" else 1)
    eps_of_sum = config.option("eps_of_sum", None)
    eps_of_preset = eps_of_sum and eps_of_sum / _elements_a_fit(config, row)
    options["eps"] = config.option("eps", eps_of_preset or standard.eps)
    return Objective(**options)


def _elements_a_fit(config: DistillConfig, row: int) -> int:
    if config.loss == "lift":
        return row
    if config.num_groups is not None:
        return math.ceil(row / config.num_groups)
    return config.group_size or 16


def _student(config: DistillConfig, teacher: LoadedModel) -> LoadedModel:
    if config.student is not None:
        return load_model(config.student)
    model = shrink(
        teacher.model.config,
        config.student_block_out_channels,
        config.student_layers_per_block,
        seed=derive_seed(config.seed, "student"),
    )
    return LoadedModel(model, None, "the new student")


def _new_model(
    config: TrainConfig, given: dict | None, channels: int, resolution: int
) -> UNet2DModel:
    if given is not None:
        architecture = {name: value for name, value in given.items() if not name.startswith("_")}
        architecture["sample_size"] = resolution
    else:
        levels = len(config.block_out_channels)
        architecture = {
            "sample_size": resolution,
            "in_channels": channels,
            "out_channels": channels,
            "block_out_channels": config.block_out_channels,
            "layers_per_block": config.layers_per_block,
            "norm_num_groups": config.norm_num_groups,
            "down_block_types": ("DownBlock2D",) * levels,
            "up_block_types": ("UpBlock2D",) * levels,
            "add_attention": False,
        }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(config.seed, "model"))
        try:
            return UNet2DModel(**architecture)
        except (TypeError, ValueError) as error:
            raise UsageError(f"UNet2DModel does not take this architecture: {error}") from error


def _load_images(config: RunConfig, resolution: int):
    return load_dataset(
        config.dataset_name or config.train_data_dir,
        resolution=resolution,
        center_crop=config.center_crop,
    )
