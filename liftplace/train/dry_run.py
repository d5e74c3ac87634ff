"""What a run will need, before it starts (`--dry_run`)."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import torch

from liftplace.common.distributed import distributed_state
from liftplace.common.text_table import text_table
from liftplace.data.batches import effective_batch
from liftplace.families import Family
from liftplace.models.costs import count_parameters
from liftplace.models.hub import INDEX
from liftplace.models.loading import DTYPES, LoadedModel
from liftplace.models.norms import compare_norms
from liftplace.models.saving import copied_files
from liftplace.train.run_config import RunConfig

FLOAT = 4  # bytes
GIB = 2**30


@dataclass(frozen=True)
class ResourceEstimate:
    """Sizes in bytes, for one process."""

    teacher_parameters: int | None  # None without a teacher
    student_parameters: int
    norms: str | None  # groups of the teacher's and of the student's, where both have some
    effective_batch: int  # images an optimiser step
    steps: int
    images: int  # of the dataset
    learning_rate: str  # and its schedule, in words
    memory: dict[str, int]  # by what takes it; without the allocator's and the framework's own
    checkpoint: int  # one on disk
    checkpoints: int  # kept at the end
    result: int
    free_disk: int
    seconds_a_step: float | None = None  # measured; None where a step does not fit into memory

    @property
    def disk(self) -> int:
        return self.checkpoints * self.checkpoint + self.result

    def table(self) -> str:
        epochs = self.steps * self.effective_batch / self.images
        parts = f"{self.checkpoints} checkpoints of {_size(self.checkpoint)} and the result"
        rows = [
            *self._models(),
            ("effective batch", f"{self.effective_batch:,} images"),
            ("steps", f"{self.steps:,} ({epochs:.2f} epochs of {self.images:,} images)"),
            ("learning rate", self.learning_rate),
            ("time", self._time()),
            *((f"memory: {name}", _size(value)) for name, value in self.memory.items()),
            ("memory: sum", f"{_size(sum(self.memory.values()))} a process, an estimate"),
            ("disk", f"{_size(self.disk)}: {parts}; {_size(self.free_disk)} free"),
        ]
        return text_table(rows, left=2)

    def _time(self) -> str:
        seconds = self.seconds_a_step
        if seconds is None:
            return "not measured: a step does not fit into the device's memory"
        return f"about {_duration(seconds * self.steps)}, {seconds:.3g} s a step here"

    def _models(self) -> list[tuple[str, str]]:
        student, teacher = self.student_parameters, self.teacher_parameters
        if teacher is None:
            return [("model", f"{student:,} parameters")]
        return [
            ("teacher", f"{teacher:,} parameters"),
            ("student", f"{student:,} parameters ({student / teacher:.1%})"),
            *([] if self.norms is None else [("norm groups", self.norms)]),
        ]


def estimate_resources(
    config: RunConfig,
    teacher: LoadedModel | None,
    student: LoadedModel,
    images: int,
    size: tuple[int, int],
) -> ResourceEstimate:
    """
    Args:
        config: a `DistillConfig` where there is a teacher.
        teacher, student: of distilling; without a teacher the second is the model to train.
        images: in the dataset.
        size: height and width of what the models denoise.
    """
    parameters = count_parameters(student.model)
    teacher_parameters = None if teacher is None else count_parameters(teacher.model)
    one = DTYPES[config.mixed_precision].itemsize
    adam = 2 * parameters * (1 if config.use_8bit_adam else FLOAT)
    ema = parameters * FLOAT if config.use_ema else 0
    batch = config.train_batch_size
    saved = _activations(student.family, student.model.config, size, config.gradient_checkpointing)
    weights = parameters * FLOAT
    memory = {
        f"{'model' if teacher is None else 'student'}, gradient, optimiser": 2 * weights + adam,
        "average": ema,
        "teacher": teacher_parameters * one if teacher is not None and config.loss != "none" else 0,
        "activations": saved * batch * one // FLOAT,
    }
    total = config.max_train_steps
    every = config.checkpointing_steps
    kept = -(-total // every) if every else 0
    return ResourceEstimate(
        teacher_parameters=teacher_parameters,
        student_parameters=parameters,
        norms=None if teacher is None else compare_norms(student.model, teacher.model),
        effective_batch=effective_batch(config, distributed_state().num_processes),
        steps=total,
        images=images,
        learning_rate=describe_learning_rate(config),
        memory={name: value for name, value in memory.items() if value},
        checkpoint=weights + adam + ema,
        checkpoints=min(kept, config.checkpoints_total_limit or kept),
        result=weights + _other_parts(teacher),
        free_disk=shutil.disk_usage(_existing(Path(config.output_dir).resolve())).free,
    )


def describe_learning_rate(config: RunConfig) -> str:
    """The learning rate and what the schedule makes of it, in words."""
    warmup, total = config.warmup_steps(config.max_train_steps), config.max_train_steps
    if warmup >= total:
        return f"{config.learning_rate:g} is not reached: --lr_warmup_steps {warmup:,}"
    start = f"{config.learning_rate:g}" + (f" after {warmup:,} steps of warm-up" if warmup else "")
    if config.lr_scheduler.startswith("constant"):
        return f"{start}, constant"
    return f"{start}, then {config.lr_scheduler.replace('_', ' ')} to {config.lr_min:g}"


def _activations(family: Family, config, size: tuple[int, int], checkpointing: bool) -> int:
    """Bytes in float32 that the backward keeps for one image, counted without computing."""
    noisy, timesteps, conditions = family.example(config, size=size)
    with torch.device("meta"):
        model = family.model_class.from_config(config)
    if checkpointing:
        model.enable_gradient_checkpointing()
    family.prepare_training(model.train())
    of_weights = {weight.untyped_storage()._cdata for weight in model.parameters()}
    saved = {}

    def count(tensor):
        storage = tensor.untyped_storage()
        if storage._cdata not in of_weights:
            saved[storage._cdata] = storage.nbytes()
        return tensor

    conditions = {name: value.to("meta") for name, value in conditions.items()}
    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        output = family.predict(model, noisy.to("meta"), timesteps.to("meta"), conditions)
        total = sum(saved.values())  # while the graph of `output` keeps every storage alive
    del output
    return total


def _other_parts(teacher: LoadedModel | None) -> int:
    """Of a pipeline, what is copied beside the student."""
    if teacher is None or not (Path(teacher.pipeline) / INDEX).is_file():
        return 0
    copied = copied_files(Path(teacher.pipeline), teacher.family.component)
    return sum(path.stat().st_size for path, _ in copied)


def _existing(folder: Path) -> Path:
    return folder if folder.exists() else _existing(folder.parent)


def _duration(seconds: float) -> str:
    for unit, length in (("days", 86_400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} seconds"


def _size(value: int) -> str:
    return f"{value / GIB:.2f} GiB" if value >= GIB / 10 else f"{value / 2**20:.1f} MiB"
