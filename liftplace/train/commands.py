"""The two commands that train: from scratch, and from a teacher."""

import math
from dataclasses import fields, replace

import torch
from torch import nn
from torch.utils.data import Dataset

from liftplace.common.distributed import distributed_state
from liftplace.common.errors import UsageError
from liftplace.common.seeds import derive_seed
from liftplace.data import open_dataset
from liftplace.data.encoder import Encoder
from liftplace.data.size import image_size
from liftplace.families import Family, family_of
from liftplace.models.loading import LoadedModel, check_pair, load_model, read_model_config
from liftplace.models.noise import NoiseProcess
from liftplace.models.norms import norm_warning
from liftplace.models.saving import read_record
from liftplace.models.shrink import shrink
from liftplace.models.snippet import loading_line
from liftplace.train.config import DistillConfig, TrainConfig
from liftplace.train.dry_run import estimate_resources
from liftplace.train.export import check_push, describe, push
from liftplace.train.features import NO_FEATURES, FeatureMatch, choose_pairs, match_features
from liftplace.train.loop import fit
from liftplace.train.objective import Objective, SpaceWeight
from liftplace.train.run_config import RunConfig
from liftplace.train.run_folder import as_begun, check_output_dir, recorded_commit
from liftplace.train.setup import new_trainers
from liftplace.train.step_time import seconds_a_step
from liftplace.train.trainer import TrainerSpec
from liftplace.train.vlb import VLBLoss


def train(config: TrainConfig) -> None:
    """Train a model of pixels from scratch; `config.output_dir` becomes a diffusers pipeline.

    Raises: as `liftplace.train.fit`, and UsageError for whatever is wrong with the settings.
    """
    config.check_complete()
    config = as_begun(config)
    check_output_dir(config)
    steps, betas = config.ddpm_num_steps, config.ddpm_beta_schedule
    process = NoiseProcess.new(config.prediction_type, steps, betas, config)
    model_config = None
    if config.model_config_name_or_path is not None:
        model_config = read_model_config(config.model_config_name_or_path)
    resolution = image_size(config) or (model_config and model_config["sample_size"])
    if resolution is None:
        raise UsageError("--resolution is missing: the height and width of the images")
    family = family_of(model_config or {"_class_name": "UNet2DModel"})
    if not isinstance(resolution, int):
        raise UsageError(
            f"--height {resolution[0]} --width {resolution[1]} are for U-Nets of Stable Diffusion "
            f"and for Flux: a {family.class_name} works at one size of squares, --resolution"
        )
    labels = False
    if model_config is not None:
        labels = family.num_classes(family.complete(model_config)) is not None
    dataset = open_dataset(config, resolution, labels=labels, captions=False)
    model = _new_model(config, family, model_config, dataset.channels, resolution)
    source = config.model_config_name_or_path or config.output_dir
    loaded = LoadedModel(model, None, source)
    encoder = Encoder(loaded, resolution)
    encoder.check(dataset, random_flip=config.random_flip)
    spec = TrainerSpec(model, Objective("none"), config, name="model")
    _warn_of_warmup(config)
    if config.dry_run:
        _print_estimate(config, None, loaded, spec, dataset, encoder, process)
        return
    check_push(config)
    (trainer,) = new_trainers([spec], config)
    fit([trainer], dataset=dataset, encoder=encoder, process=process, config=config)
    trainer.save(config.output_dir, process)
    if trainer.is_main_process:
        push(config)
        print(f"{config.output_dir}: load it with: {loading_line(config.output_dir, model)}")


def distill(config: DistillConfig) -> None:
    """Distil a student from a teacher; `config.output_dir` becomes a diffusers pipeline.

    Raises: as `liftplace.train.fit`, and UsageError for whatever is wrong with the settings.
    """
    config.check_complete()
    config = as_begun(config)
    check_output_dir(config)
    revision = recorded_commit(config) or config.revision
    teacher = load_model(config.pretrained_teacher_name_or_path, revision, config.variant)
    student = student_of(config, teacher)
    check_pair(student, teacher)
    process = teacher.process(config)
    encoder = Encoder(teacher, image_size(config))
    dataset = open_dataset(
        config, encoder.resolution, labels=encoder.takes_labels, captions=encoder.takes_captions
    )
    encoder.check(dataset, random_flip=config.random_flip)
    if config.conditioning_dropout_prob > 0:
        encoder.null_conditions(1)  # raises where there are none
    spec = trainer_spec(config, student, teacher, process, encoder)
    if process.prediction_type == "epsilon" and distributed_state().is_main_process:
        _warn_of_norms(config, student.model)
    _warn_of_warmup(config)
    if config.dry_run:
        _print_estimate(config, teacher, student, spec, dataset, encoder, process)
        return
    check_push(config)
    (trainer,) = new_trainers([spec], config)
    fit(
        [trainer],
        dataset=dataset,
        encoder=encoder,
        process=process,
        config=config,
        teacher=teacher.model if spec.objective.needs_teacher else None,
        description="Distilling",
        base_pipeline=teacher.pipeline,
    )
    trainer.save(config.output_dir, process, teacher.pipeline)
    if trainer.is_main_process:
        describe(config, student, teacher)
        push(config)
        line = loading_line(config.output_dir, student.model)
        print(f"{config.output_dir}: load it with: {line}")


def _print_estimate(
    config: RunConfig,
    teacher: LoadedModel | None,
    student: LoadedModel,
    spec: TrainerSpec,
    dataset: Dataset,
    encoder: Encoder,
    process: NoiseProcess,
) -> None:
    size = encoder.shape[1:]
    # Before the steps, which change the model.
    estimate = estimate_resources(config, teacher, student, len(dataset), size)
    needed = teacher.model if spec.objective.needs_teacher else None
    try:
        seconds = seconds_a_step(
            spec,
            dataset=dataset,
            encoder=encoder,
            process=process,
            config=config,
            teacher=needed,
        )
    except torch.OutOfMemoryError:
        seconds = None
    if distributed_state().is_main_process:
        print(replace(estimate, seconds_a_step=seconds).table())


def trainer_spec(
    config: DistillConfig,
    student: LoadedModel,
    teacher: LoadedModel,
    process: NoiseProcess,
    encoder: Encoder,
    name: str = "student",
) -> TrainerSpec:
    """The trainer of the student that the settings describe.

    Raises:
        UsageError: settings that do not go with the models or the process.
    """
    steps = process.scheduler.config.num_train_timesteps
    if config.kd_min_timestep >= steps:
        raise UsageError(
            f"kd_min_timestep is {config.kd_min_timestep:g}, and the teacher has {steps} "
            "timesteps: nothing would be distilled"
        )
    objective = objective_of(config, *encoder.shape)
    return TrainerSpec(
        student.model,
        objective,
        config,
        name,
        match=_match(config, student, teacher) if objective.has("feature") else NO_FEATURES,
        vlb=_vlb_loss(config, student, process),
        space_weight=_space_weight(config, process),
    )


def _space_weight(config: DistillConfig, process: NoiseProcess) -> SpaceWeight | None:
    if config.kd_space in ("prediction", process.prediction_type):
        return None
    return SpaceWeight(process, config.kd_space, config.kd_space_max_weight)


def _match(config: DistillConfig, student: LoadedModel, teacher: LoadedModel) -> FeatureMatch:
    pairs = choose_pairs(
        student.model,
        teacher.model,
        config.feature_layers or (),
        read_record(student.folder).get("layer_map"),
    )
    return match_features(
        student.model,
        teacher.model,
        pairs,
        seed=derive_seed(config.seed, "adapters"),
        always=config.feature_adapters == "always",
    )


def _vlb_loss(config: DistillConfig, student: LoadedModel, process: NoiseProcess) -> VLBLoss | None:
    family, weight = student.family, config.variance_weight
    if family.out_channels(student.model.config) == family.in_channels(student.model.config):
        return None
    if weight is None:
        weight = float(family.trains_variance)
    return VLBLoss(process) if weight > 0 else None


def objective_of(config: DistillConfig, channels: int, height: int, width: int) -> Objective:
    """The objective that the settings describe, for outputs of this size."""
    same = {field.name for field in fields(Objective)} & {field.name for field in fields(config)}
    options = {name: getattr(config, name) for name in same}
    if config.eps_of_sum is not None:
        row = height * width * (channels if config.scope == "sample" else 1)
        options["eps"] = config.eps_of_sum / _elements_a_fit(config, row)
    return Objective(**{name: value for name, value in options.items() if value is not None})


def _elements_a_fit(config: DistillConfig, row: int) -> int:
    if config.loss == "lift":
        return row
    if config.num_groups is not None:
        return math.ceil(row / config.num_groups)
    return config.group_size or 16


def student_of(config: DistillConfig, teacher: LoadedModel) -> LoadedModel:
    """The student to start from: the one that the settings name, or the teacher shrunk."""
    if config.student is not None:
        return load_model(config.student, config.student_revision, config.student_variant)
    if teacher.family.class_name != "UNet2DModel":
        raise UsageError(
            f"--student_block_out_channels makes a UNet2DModel, and {teacher.folder} is a "
            f"{teacher.family.class_name}: make a student with liftplace prune, and give --student"
        )
    model = shrink(
        teacher.model.config,
        config.student_block_out_channels,
        config.student_layers_per_block,
        config.student_norm_num_groups,
        seed=derive_seed(config.seed, "student"),
    )
    return LoadedModel(model, None, "the new student")


def _warn_of_warmup(config: RunConfig) -> None:
    warmup, total = config.warmup_steps(config.max_train_steps), config.max_train_steps
    if warmup >= total and distributed_state().is_main_process:
        print(
            f"Warning: --lr_warmup_steps is {warmup} and --max_train_steps {total}: the learning "
            f"rate never reaches {config.learning_rate:g}. Leave --lr_warmup_steps out for a tenth"
        )


def _warn_of_norms(config: DistillConfig, student: nn.Module) -> None:
    """Warn of norms that lose what tells noise from image at the noisiest timesteps: see
    docs/results.md, "Who wins when the teacher predicts noise?"."""
    problem = norm_warning(student)
    if problem is None:
        return
    if config.student is None:
        remedy = "leave --student_norm_num_groups out"
    else:
        remedy = "make it anew with liftplace prune, which by default leaves them more"
    print(f"Warning: {problem}. A new student does not have this problem: {remedy}")


def _new_model(
    config: TrainConfig, family: Family, model_config: dict | None, channels: int, resolution: int
) -> nn.Module:
    if model_config is not None:
        architecture = {name: x for name, x in model_config.items() if not name.startswith("_")}
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
            return family.model_class(**architecture)
        except (TypeError, ValueError) as error:
            raise UsageError(
                f"{family.class_name} does not take this architecture: {error}"
            ) from error
