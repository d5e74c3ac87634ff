"""The training loop: any number of models on the same batches, one teacher for all of them."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import torch
from accelerate import Accelerator
from accelerate.utils import (
    DistributedType,
    gather_object,
)
from torch import Tensor, nn
from torch.utils.data import Dataset
from tqdm.auto import tqdm

from liftplace.common.errors import NonFiniteError, UsageError
from liftplace.common.interrupt import Interrupt
from liftplace.common.seeds import derive_seed
from liftplace.data.batches import effective_batch, noisy_batches
from liftplace.data.encoder import Encoder
from liftplace.data.pictures import UnreadableImageError
from liftplace.evaluate.sampling import Sampler
from liftplace.models.hub import commit_of
from liftplace.models.loading import DTYPES
from liftplace.models.noise import NoiseProcess, NoisyBatch
from liftplace.train import run_folder
from liftplace.train.checkpoint import Checkpoints
from liftplace.train.hooked_model import Teacher
from liftplace.train.run_config import RunConfig
from liftplace.train.setup import prepare_teacher
from liftplace.train.trainer import ModelTrainer


class TrainingInterrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM, after a checkpoint was saved."""


def fit(
    trainers: list[ModelTrainer],
    *,
    dataset: Dataset,
    encoder: Encoder,
    process: NoiseProcess,
    config: RunConfig,
    teacher: nn.Module | None = None,
    description: str | None = "Training",
    base_pipeline: str | Path | None = None,
    keep_going: bool = False,
) -> dict[str, NonFiniteError]:
    """Train to step `config.max_train_steps`, from a checkpoint if that is asked for.

    Writes metrics.jsonl, checkpoints, TensorBoard files and pictures of samples into
    `config.output_dir`. On the same device type the weights depend on nothing but the config, the
    data and the models: not on interruptions, and not on the other models.

    Args:
        trainers: as `new_trainers` makes them; their models are trained in place, side by side.
        dataset: map-style, as `liftplace.data.load_dataset` gives.
        encoder: from its items to latents and conditions.
        process: makes noisy images and targets.
        config: of the run. Each trainer has its own optimiser settings.
        teacher: called once a batch for all trainers that need it. Frozen, and cast to the type
            of `mixed_precision`.
        description: label of the progress bar; None for no bar.
        base_pipeline: folder of a pipeline, whose other parts the best model is saved with.
        keep_going: a model with a loss, gradient or weight that is not finite is left as it is
            and the others go on, instead of the run's end.

    Returns:
        The errors by the model's name; nothing unless `keep_going`.

    Raises:
        UsageError: the output folder holds another run, or the settings do not go together.
        NonFiniteError: a loss or gradient is not finite. Says the step, the term and the last
            good checkpoint; nothing is saved after it.
        TrainingInterrupted: Ctrl-C; a checkpoint was saved.
        UnreadableImageError: a picture that cannot be read; a checkpoint was saved.
        CheckpointError: a checkpoint could not be written or read.
    """
    run_folder.check_output_dir(config)
    accelerator = trainers[0].accelerator
    teacher = prepare_teacher(teacher, trainers, config)
    checkpoints = Checkpoints(config.output_dir, config.checkpoints_total_limit)
    start = _resume(checkpoints, trainers, config)
    encoder.to(accelerator.device, DTYPES[accelerator.mixed_precision])
    sampler = Sampler(process, encoder)
    examiner = _examiner(trainers, dataset, sampler, config, base_pipeline)
    _open_folder(trainers, config, start, commit_of(base_pipeline))
    unreadable = []
    batches = noisy_batches(
        dataset, encoder, process, config, accelerator, start, on_problem=unreadable.append
    )
    gradient_steps = config.gradient_share_steps if _has_gradients(accelerator) else 0
    active, failed = list(trainers), {}

    with (
        Interrupt() as interrupt,
        _trackers(accelerator, start),
        _progress_bar(accelerator, config, start, description) as bar,
    ):
        for step in range(start + 1, config.max_train_steps + 1):
            measure = gradient_steps > 0 and step % gradient_steps == 0
            metrics = train_step(active, batches, teacher, config, step, measure_gradients=measure)
            bar.update()
            due = _due(config, step)
            stop = _agree_to_stop(accelerator, interrupt.requested or bool(unreadable), due.log)
            if stop:
                due = due._replace(checkpoint=True, evaluation=False)
            log = due.log or due.evaluation or measure
            if log or due.checkpoint:
                failed |= _not_finite(active, step, due)
                if failed and not keep_going:
                    raise _with_last_good(next(iter(failed.values())), checkpoints)
                active = [trainer for trainer in active if trainer.name not in failed]
                if not active:
                    break
            scores = {}
            if due.evaluation:
                scores = {trainer.name: examiner(trainer, step) for trainer in active}
            if log:
                _log(active, metrics, scores, step, bar, named=len(trainers) > 1)
            if due.checkpoint:
                checkpoints.save(accelerator, trainers, step)
            if stop:
                _end_if_unreadable(unreadable, step, checkpoints.latest())
                raise TrainingInterrupted(f"stopped at step {step}: {checkpoints.latest()} saved")
            if due.pictures:
                _save_pictures(active, sampler, config, step)
    return failed


def train_step(
    trainers: list[ModelTrainer],
    batches: Iterator[NoisyBatch],
    teacher: Teacher | None,
    config: RunConfig,
    step: int,
    *,
    measure_gradients: bool = False,
) -> dict[str, dict[str, Tensor]]:
    """Optimiser step number `step` of every trainer, without waiting for the device.

    Args:
        batches: `gradient_accumulation_steps` are taken.
        measure_gradients: see what each term adds to the gradient of the first batch.

    Returns:
        The step's metrics by the model's name, see `ModelTrainer.update`.
    """
    parts = config.gradient_accumulation_steps
    progress = (step - 1) / config.max_train_steps
    rank = trainers[0].accelerator.process_index
    for part in range(parts):
        batch = next(batches)
        output = None if teacher is None else teacher(batch)
        seed = derive_seed(config.seed, "dropout", step, part, rank)
        for trainer in trainers:
            if measure_gradients and part == 0:
                trainer.measure_gradients(batch, output, progress=progress, seed=seed)
            torch.manual_seed(seed)
            sync = part == parts - 1
            trainer.accumulate(
                batch, output, share=1 / parts, sync_gradients=sync, progress=progress
            )
    return {trainer.name: trainer.update(step) for trainer in trainers}


class _Due(NamedTuple):
    """What follows a step."""

    log: bool
    checkpoint: bool
    evaluation: bool
    pictures: bool
    last: bool


def _due(config: RunConfig, step: int) -> _Due:
    last = step == config.max_train_steps

    def every(steps: int) -> bool:
        return steps > 0 and (last or step % steps == 0)

    return _Due(
        log=every(config.logging_steps),
        checkpoint=every(config.checkpointing_steps),
        evaluation=every(config.evaluation_steps),
        pictures=every(config.validation_steps),
        last=last,
    )


def _resume(checkpoints: Checkpoints, trainers: list[ModelTrainer], config: RunConfig) -> int:
    """Steps that are done: those of the checkpoint that the settings name."""
    checkpoint = checkpoints.find(config.resume_from_checkpoint)
    if checkpoint is None:
        return 0
    start = checkpoints.load(checkpoint, trainers[0].accelerator, trainers)
    if start > config.max_train_steps:
        raise UsageError(f"{checkpoint} is beyond --max_train_steps {config.max_train_steps}")
    return start


def _examiner(trainers, dataset, sampler, config, base_pipeline):
    """What scores a trainer at a step and keeps the best; None without --evaluation_steps."""
    if config.evaluation_steps == 0:
        return None
    from liftplace.train.evaluation import ValidationCallback  # the feature networks

    accelerator = trainers[0].accelerator
    return ValidationCallback(trainers, dataset, sampler, config, accelerator, base_pipeline)


def _has_gradients(accelerator: Accelerator) -> bool:
    if accelerator.distributed_type != DistributedType.DEEPSPEED:
        return True
    if accelerator.is_main_process:
        print("no gradient shares: DeepSpeed keeps the gradients to itself")
    return False


def _open_folder(
    trainers: list[ModelTrainer], config: RunConfig, start: int, teacher_commit: str | None
) -> None:
    accelerator = trainers[0].accelerator
    objectives = {trainer.name: asdict(trainer.objective) for trainer in trainers}
    batch = effective_batch(config, accelerator.num_processes)
    run_folder.check_same_run(config, objectives, batch)
    accelerator.wait_for_everyone()  # every process has checked the folder before one writes
    if accelerator.is_main_process:
        run_folder.claim_output_dir(config, objectives, batch, teacher_commit)
        run_folder.forget_after(Path(config.output_dir) / run_folder.METRICS, start)
    accelerator.wait_for_everyone()


@contextmanager
def _trackers(accelerator: Accelerator, start: int) -> Iterator[None]:
    options = {"tensorboard": {"purge_step": start + 1}} if start else {}
    accelerator.init_trackers("liftplace", init_kwargs=options)
    try:
        yield
    finally:
        for tracker in accelerator.trackers:
            tracker.finish()


def _progress_bar(
    accelerator: Accelerator, config: RunConfig, start: int, description: str | None
) -> tqdm:
    hidden = description is None or not accelerator.is_local_main_process
    total = config.max_train_steps
    return tqdm(initial=start, total=total, desc=description, unit="step", disable=hidden)


def _agree_to_stop(accelerator: Accelerator, wish: bool, log: bool) -> bool:
    """Whether one wishes to stop; several processes ask each other only where they wait anyway."""
    if accelerator.num_processes == 1:
        return wish
    if not log:
        return False
    votes = torch.tensor([wish], device=accelerator.device)
    return bool(accelerator.gather(votes).any())


def _end_if_unreadable(problems: list[str], step: int, checkpoint: Path | None) -> None:
    """Raises UnreadableImageError if a process met a picture that it could not read."""
    found = list(dict.fromkeys(gather_object(problems)))
    if found:
        raise UnreadableImageError(
            f"{found[0]}; stopped at step {step}: {checkpoint} saved. Repair it or give "
            "--on_bad_files skip, and --resume_from_checkpoint latest"
        )


def _not_finite(trainers: list[ModelTrainer], step: int, due: _Due) -> dict[str, NonFiniteError]:
    """Errors by the model's name; weights are checked too where they are about to be used."""
    errors = {}
    for trainer in trainers:
        try:
            trainer.check_finite()
            if due.checkpoint or due.evaluation or due.last:
                trainer.check_weights_finite(step)
        except NonFiniteError as error:
            errors[trainer.name] = error
    return errors


def _with_last_good(error: NonFiniteError, checkpoints: Checkpoints) -> NonFiniteError:
    return NonFiniteError(f"{error}; the last good checkpoint is {checkpoints.latest() or 'none'}")


def _log(
    trainers: list[ModelTrainer], metrics: dict, scores: dict, step: int, bar: tqdm, *, named: bool
) -> None:
    """Log the step's metrics, averaged over processes; of a named model as "name/loss"."""
    accelerator = trainers[0].accelerator
    log, losses = {}, {}
    for trainer in trainers:
        own = metrics[trainer.name]
        values = accelerator.reduce(torch.stack(list(own.values())), "mean").tolist()
        numbers = dict(zip(own, values, strict=True)) | {"learning_rate": trainer.learning_rate}
        numbers |= scores.get(trainer.name, {})
        prefix = f"{trainer.name}/" if named else ""
        log |= {prefix + name: number for name, number in numbers.items()}
        losses[prefix + "loss"] = f"{numbers['loss']:.4f}"
    accelerator.log(log, step=step)
    bar.set_postfix(losses)


def _save_pictures(
    trainers: list[ModelTrainer], sampler: Sampler, config: RunConfig, step: int
) -> None:
    """Samples of every model, by the main process; all processes call this."""
    from liftplace.plots.images import save_grid  # matplotlib

    folder = Path(config.output_dir) / "samples"
    for trainer in trainers:
        with trainer.final_weights() as model:
            if not trainer.is_main_process:
                continue
            images = sampler.sample(
                model,
                num_samples=config.num_validation_images,
                prompts=config.validation_prompts,
                num_inference_steps=config.num_inference_steps,
                seed=config.seed,
                guidance_scale=config.guidance_scale,
                batch_size=config.train_batch_size,
                description=None,
            )
            folder.mkdir(exist_ok=True)
            labels = sampler.labels(len(images), prompts=config.validation_prompts)
            save_grid(images, folder / f"{trainer.name}-{step:06d}.png", labels=labels)
