"""The training loop: any number of learners on the same batches, one teacher for all of them."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, ProjectConfiguration
from torch import nn
from torch.utils.data import Dataset
from tqdm.auto import tqdm

from liftplace.common.errors import NonFiniteError, UsageError
from liftplace.data.batches import effective_batch, noisy_batches
from liftplace.data.encoder import Encoder
from liftplace.evaluate.sampling import Sampler
from liftplace.models.loading import DTYPES
from liftplace.models.noise import NoiseProcess
from liftplace.train import metrics
from liftplace.train.checkpoint import Checkpoints
from liftplace.train.interrupt import Interrupt
from liftplace.train.learner import Learner
from liftplace.train.run_config import RunConfig
from liftplace.train.run_folder import check_output_dir, check_same_run, claim_output_dir
from liftplace.train.step import train_step
from liftplace.train.teacher import Teacher


class TrainingInterrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM, after a checkpoint was saved."""


def fit(
    learners: list[Learner],
    *,
    dataset: Dataset,
    encoder: Encoder,
    process: NoiseProcess,
    config: RunConfig,
    teacher: nn.Module | None = None,
    description: str | None = "Training",
    like: str | Path | None = None,
    keep_going: bool = False,
) -> dict[str, NonFiniteError]:
    """Train the learners to step `config.max_train_steps`, from a checkpoint if that is asked for.

    Writes metrics.jsonl, checkpoints, TensorBoard files and pictures of samples into
    `config.output_dir`. On the same device type the weights depend on nothing but the config, the
    data and the models: not on interruptions, and not on the other learners.

    Args:
        learners: trained in place, side by side.
        dataset: map-style, as `liftplace.data.load_dataset` gives.
        encoder: from its items to latents and conditions.
        process: makes noisy images and targets.
        config: of the run. Each learner has taken its own optimiser settings.
        teacher: called once a batch for all learners that need it. Frozen, and cast to the type
            of `mixed_precision`.
        description: label of the progress bar; None for no bar.
        like: a pipeline's folder, whose other parts the best model is saved with, see
            `Learner.save`.
        keep_going: a learner with a loss, gradient or weight that is not finite is left as it is
            and the others go on, instead of the run's end.

    Returns:
        What went wrong with which learner; nothing unless `keep_going`.

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
        blocks = [block for learner in learners for block in learner.teacher_blocks]
        teacher = Teacher(
            teacher, accelerator.device, config.mixed_precision, blocks, config.compile,
            config.cuda_graphs,
        )  # fmt: skip
    with_shares = config.gradient_share_steps > 0 and _has_gradients(accelerator)
    start = checkpoints.load(checkpoint, accelerator, learners) if checkpoint else 0
    if start > config.max_train_steps:
        raise UsageError(f"{checkpoint} is beyond --max_train_steps {config.max_train_steps}")
    encoder.to(accelerator.device, DTYPES[accelerator.mixed_precision])
    sampler = Sampler(process, encoder)
    examiner = _examiner(learners, dataset, sampler, config, accelerator, like)
    _open_folder(accelerator, learners, config, start)
    batches = noisy_batches(dataset, encoder, process, config, accelerator, start)
    rank = accelerator.process_index
    active, failed = list(learners), {}

    with (
        Interrupt() as interrupt,
        _trackers(accelerator, start),
        _progress_bar(accelerator, config, start, description) as bar,
    ):
        for step in range(start + 1, config.max_train_steps + 1):
            share_out = with_shares and step % config.gradient_share_steps == 0
            values = train_step(
                active, batches, teacher, config, step, share_out=share_out, rank=rank
            )
            bar.update()

            last = step == config.max_train_steps
            log = last or step % config.logging_steps == 0
            stop = _agree_to_stop(accelerator, interrupt, log)
            save = stop or _due(config.checkpointing_steps, step, last)
            evaluate = not stop and _due(config.evaluation_steps, step, last)
            log = log or share_out or evaluate
            if log or save:
                weights = save or evaluate or last
                found = _not_finite(active, step if weights else None)
                if found and not keep_going:
                    raise _with_last_good(next(iter(found.values())), checkpoints)
                failed |= found
                active = [learner for learner in active if learner.name not in failed]
                if not active:
                    break
            scores = {}
            if evaluate:
                scores = {learner.name: examiner(learner, step) for learner in active}
            if log:
                _report(accelerator, active, len(learners) > 1, values, scores, step, bar)
            if save:
                checkpoints.save(accelerator, learners, step)
            if stop:
                raise TrainingInterrupted(f"stopped at step {step}: {checkpoints.latest()} saved")
            if _due(config.validation_steps, step, last):
                _picture(active, sampler, config, step)
    return failed


def _examiner(learners, dataset, sampler, config, accelerator, like):
    """What scores a learner at a step and keeps the best; None without --evaluation_steps."""
    if config.evaluation_steps == 0:
        return None
    from liftplace.train.evaluation import ValidationCallback  # the feature networks

    return ValidationCallback(learners, dataset, sampler, config, accelerator, like)


def _has_gradients(accelerator: Accelerator) -> bool:
    if accelerator.distributed_type != DistributedType.DEEPSPEED:
        return True
    if accelerator.is_main_process:
        print("no gradient shares: DeepSpeed keeps the gradients to itself")
    return False


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
    accelerator = Accelerator(
        mixed_precision=config.mixed_precision,
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


def _open_folder(accelerator, learners: list[Learner], config: RunConfig, start: int) -> None:
    objectives = {each.name: asdict(each.objective) for each in learners}
    batch = effective_batch(config, accelerator.num_processes)
    check_same_run(config, objectives, batch)
    accelerator.wait_for_everyone()  # every process has checked the folder before one writes
    if accelerator.is_main_process:
        claim_output_dir(config, objectives, batch)
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


def _progress_bar(
    accelerator: Accelerator, config: RunConfig, start: int, description: str | None
) -> tqdm:
    return tqdm(
        initial=start, total=config.max_train_steps, desc=description, unit="step",
        disable=description is None or not accelerator.is_local_main_process,
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


def _not_finite(learners: list[Learner], saving_step: int | None) -> dict[str, NonFiniteError]:
    """By the learner's name, what is not finite; of the weights too where they will be used."""
    found = {}
    for learner in learners:
        try:
            learner.check_finite()
            if saving_step is not None:
                learner.check_weights_finite(saving_step)
        except NonFiniteError as error:
            found[learner.name] = error
    return found


def _with_last_good(error: NonFiniteError, checkpoints: Checkpoints) -> NonFiniteError:
    return NonFiniteError(f"{error}; the last good checkpoint is {checkpoints.latest() or 'none'}")


def _report(
    accelerator: Accelerator, learners: list[Learner], named: bool, values: dict, scores: dict,
    step: int, bar: tqdm,
) -> None:  # fmt: skip
    """Log the step's metrics, averaged over processes; of a named learner as "name/loss"."""
    log, losses = {}, {}
    for learner in learners:
        terms = values[learner.name]
        together = accelerator.reduce(torch.stack(list(terms.values())), "mean").tolist()
        numbers = dict(zip(terms, together, strict=True)) | {"learning_rate": learner.learning_rate}
        numbers |= scores.get(learner.name, {})
        prefix = f"{learner.name}/" if named else ""
        log |= {prefix + name: number for name, number in numbers.items()}
        losses[prefix + "loss"] = f"{numbers['loss']:.4f}"
    accelerator.log(log, step=step)
    bar.set_postfix(losses)


def _picture(learners: list[Learner], sampler: Sampler, config: RunConfig, step: int) -> None:
    """Samples of every learner, by the main process; all processes call this."""
    from liftplace.plots.images import save_grid  # matplotlib

    folder = Path(config.output_dir) / "samples"
    for learner in learners:
        with learner.final_weights() as model:
            if not learner.is_main_process:
                continue
            images = sampler.sample(
                model, num_samples=config.num_validation_images, prompts=config.validation_prompts,
                num_inference_steps=config.num_inference_steps, seed=config.seed,
                guidance_scale=config.guidance_scale, batch_size=config.train_batch_size,
                description=None,
            )  # fmt: skip
            folder.mkdir(exist_ok=True)
            save_grid(images, folder / f"{learner.name}-{step:06d}.png")
