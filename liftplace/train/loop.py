"""The training loop: any number of learners on the same batches, one teacher for all of them."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import ProjectConfiguration
from torch import Tensor, nn
from torch.utils.data import Dataset
from tqdm.auto import tqdm

from liftplace.errors import UsageError
from liftplace.train import metrics
from liftplace.train.batches import noisy_batches
from liftplace.train.checkpoint import Checkpoints
from liftplace.train.config import RunConfig
from liftplace.train.interrupt import Interrupt
from liftplace.train.learner import Learner, NonFiniteError
from liftplace.train.models import predict, set_precision
from liftplace.train.process import NoiseProcess, NoisyBatch
from liftplace.train.randomness import derive_seed
from liftplace.train.run_folder import check_output_dir, claim_output_dir


class TrainingInterrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM, after a checkpoint was saved."""


def fit(
    learners: list[Learner],
    *,
    dataset: Dataset,
    process: NoiseProcess,
    config: RunConfig,
    teacher: nn.Module | None = None,
    description: str = "Training",
) -> None:
    """Train the learners to step `config.max_train_steps`, from a checkpoint if that is asked for.

    Writes metrics.jsonl, checkpoints, TensorBoard files and pictures of samples into
    `config.output_dir`. On the same device type the weights depend on nothing but the config, the
    data and the models: not on interruptions, and not on the other learners.

    Args:
        learners: trained in place, side by side.
        dataset: map-style, items {"images": (channels, height, width)}, float32 in [-1, 1].
        process: makes noisy images and targets.
        config: of the run. Each learner has taken its own optimiser settings.
        teacher: called once a batch for all learners that need it. Frozen, and cast to the type
            of `mixed_precision`.
        description: label of the progress bar.

    Raises:
        UsageError: the output folder holds another run, or the settings do not go together.
        NonFiniteError: a loss or gradient is not finite. Says the step, the term and the last
            good checkpoint; nothing is saved after it.
        TrainingInterrupted: Ctrl-C; a checkpoint was saved.
        CheckpointError: a checkpoint could not be written or read.
    """
    check_output_dir(config)
    _check_together(learners, teacher, config)
    checkpoints = Checkpoints(config.output_dir, config.checkpoints_total_limit)
    checkpoint = checkpoints.find(config.resume_from_checkpoint)
    accelerator = _accelerator(config)
    for learner in learners:
        learner.prepare(accelerator)
    if teacher is not None:
        teacher = set_precision(teacher, accelerator.device, config.mixed_precision)
    start = checkpoints.load(checkpoint, accelerator, learners) if checkpoint else 0
    if start > config.max_train_steps:
        raise UsageError(f"{checkpoint} is beyond --max_train_steps {config.max_train_steps}")
    _open_folder(accelerator, learners, config, start)
    batches = noisy_batches(dataset, process, config, accelerator, start)
    rank = accelerator.process_index

    with (
        Interrupt() as interrupt,
        _trackers(accelerator, start),
        _progress_bar(accelerator, config, start, description) as bar,
    ):
        for step in range(start + 1, config.max_train_steps + 1):
            for part in range(config.gradient_accumulation_steps):
                batch = next(batches)
                answer = _ask(teacher, batch)
                for learner in learners:
                    torch.manual_seed(derive_seed(config.seed, "dropout", step, part, rank))
                    learner.accumulate(
                        batch,
                        answer,
                        share=1 / config.gradient_accumulation_steps,
                        last=part == config.gradient_accumulation_steps - 1,
                        progress=(step - 1) / config.max_train_steps,
                    )
            values = {learner.name: learner.update(step) for learner in learners}
            bar.update()

            last = step == config.max_train_steps
            log = last or step % config.logging_steps == 0
            stop = _agree_to_stop(accelerator, interrupt, log)
            save = stop or _due(config.checkpointing_steps, step, last)
            if log or save:
                _stop_if_not_finite(learners, checkpoints, step if save or last else None)
            if log:
                _report(accelerator, learners, values, step, bar)
            if save:
                checkpoints.save(accelerator, learners, step)
            if stop:
                raise TrainingInterrupted(f"stopped at step {step}: {checkpoints.latest()} saved")
            if _due(config.validation_steps, step, last) and accelerator.is_main_process:
                _picture(learners, process, config, step)


def _check_together(learners: list[Learner], teacher, config: RunConfig) -> None:
    if len({learner.name for learner in learners}) < len(learners):
        raise ValueError(f"learners need different names, got {[each.name for each in learners]}")
    if teacher is None and any(learner.objective.needs_teacher for learner in learners):
        raise ValueError("teacher is None, but a learner's objective compares with one")
    if len(learners) > 1 and config.mixed_precision == "fp16":
        # One gradient scaler serves all learners: one's overflow would rescale the others.
        raise ValueError("mixed_precision='fp16' takes one learner; use 'bf16' or 'no' for more")


def _accelerator(config: RunConfig) -> Accelerator:
    folder = Path(config.output_dir)
    trackers = [metrics.JsonLinesTracker(folder / metrics.FILE_NAME)]
    if config.report_to != "none":
        trackers.append(config.report_to)
    return Accelerator(
        mixed_precision=config.mixed_precision,
        log_with=trackers,
        project_config=ProjectConfiguration(folder, logging_dir=folder / config.logging_dir),
        step_scheduler_with_optimizer=False,  # the schedule counts optimiser steps of the run
    )


def _open_folder(accelerator, learners: list[Learner], config: RunConfig, start: int) -> None:
    accelerator.wait_for_everyone()  # every process has checked the folder before one writes
    if accelerator.is_main_process:
        claim_output_dir(config, {each.name: asdict(each.objective) for each in learners})
        metrics.forget_after(Path(config.output_dir) / metrics.FILE_NAME, start)
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


@torch.no_grad()
def _ask(teacher: nn.Module | None, batch: NoisyBatch) -> Tensor | None:
    if teacher is None:
        return None
    return predict(teacher, batch.noisy.to(teacher.dtype), batch.timesteps)


def _progress_bar(
    accelerator: Accelerator, config: RunConfig, start: int, description: str
) -> tqdm:
    return tqdm(
        initial=start, total=config.max_train_steps, desc=description, unit="step",
        disable=not accelerator.is_local_main_process,
    )  # fmt: skip


def _due(every: int, step: int, last: bool) -> bool:
    return every > 0 and (last or step % every == 0)


def _agree_to_stop(accelerator: Accelerator, interrupt: Interrupt, log: bool) -> bool:
    """Whether Ctrl-C was pressed; several processes ask each other only where they wait anyway."""
    if accelerator.num_processes == 1:
        return interrupt.requested
    if not log:
        return False
    votes = torch.tensor([interrupt.requested], device=accelerator.device)
    return bool(accelerator.gather(votes).any())


def _stop_if_not_finite(
    learners: list[Learner], checkpoints: Checkpoints, saving_step: int | None
) -> None:
    try:
        for learner in learners:
            learner.check_finite()
            if saving_step is not None:
                learner.check_weights_finite(saving_step)
    except NonFiniteError as error:
        last_good = checkpoints.latest()
        raise NonFiniteError(
            f"{error}; the last good checkpoint is {last_good or 'none'}"
        ) from None


def _report(
    accelerator: Accelerator, learners: list[Learner], values: dict, step: int, bar: tqdm
) -> None:
    """Log the step's metrics, averaged over processes; with several learners as "name/loss"."""
    log, losses = {}, {}
    for learner in learners:
        terms = values[learner.name]
        together = accelerator.reduce(torch.stack(list(terms.values())), "mean").tolist()
        numbers = dict(zip(terms, together, strict=True)) | {"learning_rate": learner.learning_rate}
        prefix = f"{learner.name}/" if len(learners) > 1 else ""
        log |= {prefix + name: number for name, number in numbers.items()}
        losses[prefix + "loss"] = f"{numbers['loss']:.4f}"
    accelerator.log(log, step=step)
    bar.set_postfix(losses)


def _picture(learners: list[Learner], process: NoiseProcess, config: RunConfig, step: int) -> None:
    from liftplace.evaluate.pictures import save_grid
    from liftplace.evaluate.sampling import sample_images

    folder = Path(config.output_dir) / "samples"
    folder.mkdir(exist_ok=True)
    for learner in learners:
        with learner.final_weights() as model:
            images = sample_images(
                model, process.sampler(), num_samples=config.num_validation_images,
                num_inference_steps=config.num_inference_steps, seed=config.seed, description=None,
            )  # fmt: skip
        save_grid(images, folder / f"{learner.name}-{step:06d}.png")
