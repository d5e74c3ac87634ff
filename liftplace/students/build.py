"""A student of a teacher as the settings of `liftplace prune` describe it."""

from collections.abc import Iterator
from dataclasses import fields

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from liftplace.data import open_dataset
from liftplace.data.encoder import Encoder
from liftplace.families import Family
from liftplace.processes import start_processes
from liftplace.students import depth, importance
from liftplace.students.drop_blocks import drop_blocks
from liftplace.students.prune import PruneConfig
from liftplace.students.width import narrow
from liftplace.train.batches import noisy_batches
from liftplace.train.models import LoadedModel, predict
from liftplace.train.process import NoisyBatch
from liftplace.train.randomness import derive_seed
from liftplace.train.run_config import RunConfig


def build_student(config: PruneConfig, teacher: LoadedModel) -> tuple[nn.Module, dict[str, str]]:
    """Leaves out blocks first, then channels.

    Args:
        teacher: is moved to the device that accelerate finds.

    Returns:
        The student, and the teacher's block for each block of the student, by module name.

    Raises:
        UsageError: what is asked for does not fit the teacher or the data.
    """
    family = teacher.family
    student = teacher.model.to(start_processes().device).eval()
    layer_map = {name: name for name in family.blocks(student)}
    if config.drop_blocks is not None:
        student, layer_map = drop_blocks(student, family, config.drop_blocks)
    if config.keep_layers is not None or config.depth is not None:
        student, layer_map = depth.keep_layers(student, family, _layers(config, teacher))
    if config.random_init:
        return _new(config, student.config, family).eval(), layer_map
    if config.width is not None:
        if config.importance == "taylor":
            scores = importance.taylor(student, _task_losses(config, student, teacher))
        else:
            scores = importance.magnitude(student)
        student, _ = narrow(student, family, config.width, scores=scores)
    return student.eval(), layer_map


def _new(config: PruneConfig, architecture, family: Family) -> nn.Module:
    architecture = {name: value for name, value in architecture.items() if name[0] != "_"}
    if config.width is not None:
        architecture = family.narrow_config(architecture, config.width)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(config.seed, "student"))
        return family.model_class(**architecture)


def _layers(config: PruneConfig, teacher: LoadedModel) -> list[int]:
    if config.keep_layers is not None:
        return list(config.keep_layers)
    family, model = teacher.family, teacher.model
    if config.layer_selection == "even":
        return depth.even_layers(model.config, family, config.depth)
    measured = depth.layer_importance(model, family, _inputs(config, teacher))
    return depth.important_layers(model.config, family, config.depth, measured)


def _inputs(config: PruneConfig, teacher: LoadedModel) -> Iterator[depth.Inputs]:
    """What the teacher is given when its layers are measured: noisy images of the dataset, or pure
    noise without one."""
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
    same = {field.name for field in fields(RunConfig)} & {field.name for field in fields(config)}
    run = RunConfig(
        **{name: getattr(config, name) for name in same}, max_train_steps=config.num_batches
    )
    batches = noisy_batches(dataset, encoder, teacher.process(), run, start_processes(), 0)
    return tqdm(batches, total=config.num_batches, desc="Importance", unit="batch")
