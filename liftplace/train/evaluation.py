"""Scores of samples while a model trains, and the best model so far."""

import math
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor, nn
from torch.utils.data import Dataset
from tqdm.auto import tqdm

from liftplace.common.distributed import device_of, main_process_decides
from liftplace.common.errors import UsageError
from liftplace.data import CachedLatents, load_dataset
from liftplace.evaluate.collect import PART, seed_of_part
from liftplace.evaluate.features import extract_features
from liftplace.evaluate.judge import Judge, Score
from liftplace.evaluate.networks import load_network
from liftplace.evaluate.reference import real_features
from liftplace.evaluate.sampler import Sampler
from liftplace.train.best_model import BestModel
from liftplace.train.run_config import RunConfig
from liftplace.train.trainer import ModelTrainer


class Examiner:
    """Scores trainers, and keeps the best model of each where `config.metric_for_best_model` is
    given: in the folder best of the run, of several trainers in best/<name>.

    Args:
        trainers: of the run.
        dataset, sampler, config, accelerator: see `Evaluation`.
        base_pipeline: of `ModelTrainer.save`.

    Raises: as `Evaluation`.
    """

    def __init__(
        self,
        trainers: list[ModelTrainer],
        dataset: Dataset,
        sampler: Sampler,
        config: RunConfig,
        accelerator: Accelerator,
        base_pipeline: str | Path | None = None,
    ) -> None:
        self._evaluation = Evaluation(config, dataset, sampler, accelerator)
        self._accelerator = accelerator
        folder, metric = Path(config.output_dir) / "best", config.metric_for_best_model
        basis, process = self._evaluation.basis, sampler.process
        self._best = {}
        for trainer in trainers if metric is not None else ():
            place = folder / trainer.name if len(trainers) > 1 else folder
            self._best[trainer.name] = BestModel(place, metric, basis, process, base_pipeline)

    def __call__(self, trainer: ModelTrainer, step: int) -> dict[str, float]:
        """The scores for the log. Every process of the run calls this."""
        scores = self._evaluation.scores(trainer)
        unfit = [score.name for score in scores.values() if not math.isfinite(score.value)]
        if unfit and trainer.is_main_process:
            tqdm.write(f"step {step}: {', '.join(unfit)} of {trainer.name} is not finite")
        best = self._best.get(trainer.name)
        if best is not None:
            if main_process_decides(self._accelerator, partial(best.is_better, scores)):
                best.keep(trainer, step, scores)
        return {f"evaluation/{score.name}": score.value for score in scores.values()}


class Evaluation:
    """Scores trainers as `liftplace evaluate` scores saved models, without intervals.

    Every evaluation of a run starts from the same noise. Every process of the run makes one.

    Args:
        config: of the run.
        dataset: of its images, which are the reference unless `config.reference_dir` names others.
        sampler: on the accelerator's device.
        accelerator: of the run.

    Raises:
        UsageError: no images to compare with, too few, or no such network.
    """

    def __init__(
        self, config: RunConfig, dataset: Dataset, sampler: Sampler, accelerator: Accelerator
    ) -> None:
        self._config, self._sampler, self._accelerator = config, sampler, accelerator
        device = device_of(accelerator)
        self._network = load_network(config.feature_network, config.feature_weights).to(device)
        if "is" in config.evaluation_metrics and not hasattr(self._network, "logits"):
            raise UsageError(f"--evaluation_metrics is: {self._network.name} has no classes")
        reference = _reference(config, dataset, sampler.encoder.resolution)
        self._judge = None
        if accelerator.is_main_process:
            count = config.num_evaluation_samples
            real, _ = real_features(reference, self._network, count, device, floor=False)
            self._judge = Judge(self._network, real, draws=0)
        accelerator.wait_for_everyone()
        self.basis = {
            "reference": reference.identity(),
            "num_samples": config.num_evaluation_samples,
            "num_inference_steps": config.num_inference_steps,
            "guidance_scale": config.guidance_scale,
            "prompts": config.validation_prompts and list(config.validation_prompts),
            "seed": config.seed,
            "feature_network": self._network.name,
            "feature_network_sha256": self._network.weights_sha256,
        }

    def scores(self, trainer: ModelTrainer) -> dict[str, Score]:
        """By metric, of the trainer's final weights; NaN where its samples are not finite.

        Every process of the run calls this, and gets the same.
        """
        with trainer.final_weights() as model:
            parts = gather_object([self._draw(trainer, model)])
        features = {number: part for own in parts for number, part in own.items()}

        def score() -> list[Score]:
            samples = torch.cat([features[number] for number in sorted(features)])
            return self._score(samples.to(self._judge.real.device))

        scores = main_process_decides(self._accelerator, score)
        return dict(zip(self._config.evaluation_metrics, scores, strict=True))

    def _draw(self, trainer: ModelTrainer, model: nn.Module | None) -> dict[int, Tensor]:
        """The features of this process's parts of the samples, by the part's number."""
        total, features_of_part = self._config.num_evaluation_samples, {}
        firsts = range(0, total, PART)
        rank, world_size = self._accelerator.process_index, self._accelerator.num_processes
        if trainer.is_sharded:  # only the main process has a model
            rank, world_size = (0, 1) if model is not None else (len(firsts), 1)
        numbers, hidden = range(rank, len(firsts), world_size), not trainer.is_main_process
        text = f"Evaluating {trainer.name}"
        for number in tqdm(numbers, desc=text, unit="part", leave=False, disable=hidden):
            count = min(PART, total - firsts[number])
            images = self._images(model, number, firsts[number], count)
            features = extract_features(images, self._network, description=None)
            features_of_part[number] = features.cpu()
        return features_of_part

    def _images(self, model: nn.Module, number: int, first: int, count: int) -> Tensor:
        config = self._config
        return self._sampler.sample(
            model,
            num_samples=count,
            first=first,
            num_inference_steps=config.num_inference_steps,
            seed=seed_of_part(config.seed, number),
            batch_size=config.train_batch_size,
            prompts=config.validation_prompts,
            guidance_scale=config.guidance_scale,
            description=None,
        )

    def _score(self, samples: Tensor) -> list[Score]:
        judge, metrics = self._judge, self._config.evaluation_metrics
        if samples.shape[1] != judge.real.shape[1]:
            raise UsageError(
                f"feature_network {self._config.feature_network} gives {samples.shape[1]} features "
                f"of a sample and {judge.real.shape[1]} of a real image: it must take both"
            )
        if samples.isfinite().all():
            return judge.scores(metrics, samples)
        return [replace(row, value=math.nan) for row in judge.scores(metrics, judge.real)]


def _reference(config: RunConfig, dataset: Dataset, resolution: int) -> Dataset:
    if config.reference_dir is not None:
        dataset = load_dataset(
            config.reference_dir, resolution=resolution, center_crop=config.center_crop
        )
    if isinstance(dataset, CachedLatents):
        source = (
            f"--reference_dir {config.reference_dir}" if config.reference_dir else "the dataset"
        )
        raise UsageError(
            f"--evaluation_steps needs images, and {source} holds latents: name the images' folder "
            "with --reference_dir"
        )
    if len(dataset) < config.num_evaluation_samples:
        raise UsageError(
            f"num_evaluation_samples is {config.num_evaluation_samples}, but there are "
            f"{len(dataset)} real images: a score needs as many"
        )
    return dataset
