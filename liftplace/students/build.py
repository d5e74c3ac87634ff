"""A student of a teacher as the settings of `liftplace prune` describe it."""

import json
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from liftplace.common.distributed import distributed_state
from liftplace.common.errors import UsageError
from liftplace.common.seeds import derive_seed
from liftplace.data import open_dataset
from liftplace.data.batches import noisy_batches
from liftplace.data.config import BatchConfig
from liftplace.data.encoder import Encoder
from liftplace.families import Family
from liftplace.families.norm_groups import student_groups
from liftplace.models.loading import LoadedModel, predict
from liftplace.models.noise import NoisyBatch
from liftplace.students import depth, importance
from liftplace.students.config import PruneConfig
from liftplace.students.drop_blocks import drop_blocks
from liftplace.students.width import inherit


def build_student(config: PruneConfig, teacher: LoadedModel) -> tuple[nn.Module, dict[str, str]]:
    """Leaves out blocks first, then channels.

    Args:
        teacher: is moved to the device that accelerate finds.

    Returns:
        The student, and the teacher's block for each block of the student, by module name.

    Raises:
        UsageError: the settings do not fit the teacher or the data.
    """
    family = teacher.family
    student = teacher.model.to(distributed_state().device).eval()
    layer_map = {name: name for name in family.blocks(student)}
    if config.drop_blocks is not None:
        student, layer_map = drop_blocks(student, family, config.drop_blocks)
    if config.keep_layers is not None or config.depth is not None:
        student, layer_map = depth.keep_layers(student, family, _layers(config, teacher))
    architecture = _architecture(config, student.config, family)
    if config.random_init:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(config.seed, "student"))
            student = family.new(architecture)
    elif config.is_narrow:
        if config.importance == "taylor":
            scores = importance.taylor(student, _task_losses(config, student, teacher))
        else:
            scores = importance.magnitude(student)
        try:
            student, _ = inherit(student, family, architecture, scores=scores)
        except ValueError as error:
            raise UsageError(
                f"the student cannot have the teacher's weights: {error}: change "
                f"{config.student_config or 'the width'}, or give --random_init"
            ) from error
    return student.eval(), layer_map


def _architecture(config: PruneConfig, teachers, family: Family) -> dict[str, Any]:
    """The constructor arguments of the student.

    Args:
        teachers: config of the teacher without the blocks that are left out.
    """
    if config.width is not None:
        return family.narrow_config(teachers, config.width, config.norm_num_groups)
    architecture = {name: value for name, value in teachers.items() if name[0] != "_"}
    if config.student_config is not None:
        family.narrow_config(teachers, 1.0)  # raises where its blocks cannot be narrowed
        architecture |= _changes(Path(config.student_config), family, architecture)
    return architecture


def _changes(file: Path, family: Family, known) -> dict[str, Any]:
    """What a JSON file says of a student; norm groups to its channels, unless it says them."""
    try:
        changes = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"student_config {file}: no JSON file: {error}") from error
    if not isinstance(changes, dict):
        raise UsageError(f"student_config {file}: need an object as in a config.json")
    if changes.get("_class_name", family.class_name) != family.class_name:
        raise UsageError(
            f"student_config {file} is of a {changes['_class_name']}, the teacher a "
            f"{family.class_name}"
        )
    changes = {name: value for name, value in changes.items() if name[0] != "_"}
    if unknown := sorted(changes.keys() - known.keys()):
        raise UsageError(f"student_config {file}: {family.class_name} has no {unknown[0]}")
    if "block_out_channels" in changes and "norm_num_groups" not in changes:
        changes["norm_num_groups"] = student_groups(
            changes["block_out_channels"], known["block_out_channels"], known["norm_num_groups"]
        )
    try:
        family.skeleton(dict(known) | changes)
    except (TypeError, ValueError) as error:
        raise UsageError(f"student_config {file}: no such {family.class_name}: {error}") from error
    return changes


def _layers(config: PruneConfig, teacher: LoadedModel) -> list[int]:
    if config.keep_layers is not None:
        return list(config.keep_layers)
    family, model = teacher.family, teacher.model
    if config.layer_selection == "even":
        return depth.even_layers(model.config, family, config.depth)
    measured = depth.layer_importance(model, family, _inputs(config, teacher))
    return depth.important_layers(model.config, family, config.depth, measured)


def _inputs(config: PruneConfig, teacher: LoadedModel) -> Iterator[depth.Inputs]:
    """Inputs for measuring the teacher's layers: noisy images of the dataset, or pure noise without
    one."""
    if config.has_data:
        for batch in _noisy_batches(config, teacher):
            yield batch.noisy, batch.timesteps, batch.conditions
        return
    family, device = teacher.family, teacher.model.device
    for number in tqdm(range(config.num_batches), desc="Importance of layers", unit="batch"):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(config.seed, "importance", number))
            inputs = family.example(teacher.model.config, batch=config.train_batch_size)
            timesteps = torch.randint(1000, inputs[1].shape)
        conditions = {name: value.to(device) for name, value in inputs[2].items()}
        yield inputs[0].to(device), timesteps.to(device), conditions


def _task_losses(config: PruneConfig, student: nn.Module, teacher: LoadedModel) -> Iterator[Tensor]:
    student.eval()  # in training mode it might drop labels at random
    for batch in _noisy_batches(config, teacher):
        output = predict(student, batch.noisy, batch.timesteps, batch.conditions)
        yield (output - batch.target).square().mean()


def _noisy_batches(config: PruneConfig, teacher: LoadedModel) -> Iterator[NoisyBatch]:
    encoder = Encoder(teacher, config.resolution).to(teacher.model.device)
    dataset = open_dataset(
        config, encoder.resolution, labels=encoder.takes_labels, captions=encoder.takes_captions
    )
    encoder.check(dataset)
    same = {field.name for field in fields(BatchConfig)} & {field.name for field in fields(config)}
    same -= {"width"}  # of the student, there of the images
    run = BatchConfig(
        **{name: getattr(config, name) for name in same}, max_train_steps=config.num_batches
    )
    batches = noisy_batches(dataset, encoder, teacher.process(), run, distributed_state(), 0)
    return tqdm(batches, total=config.num_batches, desc="Importance", unit="batch")
