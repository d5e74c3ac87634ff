"""Scores of samples while models train, and the best model of each."""

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
from liftplace.data import CachedLatents
from liftplace.data.encoder import Encoder
from liftplace.data.reading import SkipUnreadable
from liftplace.evaluate.conditions import draw_conditions, open_with_conditions
from liftplace.evaluate.evaluator import Evaluator, Score
from liftplace.evaluate.features import real_features
from liftplace.evaluate.networks import load_network
from liftplace.evaluate.parts import parts_of, sample_part
from liftplace.evaluate.sampling import Sampler
from liftplace.evaluate.subsets import SHUFFLE_SEED, too_few_images
from liftplace.train.best_model import BestModel
from liftplace.train.run_config import FEWEST_SAMPLES, RunConfig
from liftplace.train.trainer import ModelTrainer

TOO_FEW = {"count_flag": "--num_evaluation_samples", "fewest": FEWEST_SAMPLES, "floor": False}


class ValidationCallback:
    """Scores trainers as `liftplace evaluate` scores saved models, without intervals. Where
    `config.metric_for_best_model` is given, it keeps the best model of each: in the folder best of
    the run, of several trainers in best/<name>.

    Every evaluation of a run starts from the same noise. Every process of the run makes one.

    Args:
        trainers: of the run.
        dataset: of its images, which are the reference unless `config.reference_dir` names others.
        sampler: on the accelerator's device.
        config, accelerator: of the run.
        base_pipeline: of `ModelTrainer.save`.

    Raises:
        UsageError: no images to compare with, too few, or no such network.
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
        self._config, self._sampler, self._accelerator = config, sampler, accelerator
        device, count = device_of(accelerator), config.num_evaluation_samples
        self._network = load_network(config.feature_network, config.feature_weights).to(device)
        if "is" in config.evaluation_metrics and not hasattr(self._network, "logits"):
            raise UsageError(f"--evaluation_metrics is: {self._network.name} has no classes")
        reference = _reference(config, dataset, sampler.encoder)
        self._drawn = draw_conditions(
            reference, sampler.encoder, count, prompts=config.validation_prompts
        )
        self._evaluator = None
        if accelerator.is_main_process:
            skips = config.on_bad_files == "skip"
            images = SkipUnreadable(reference) if skips else reference
            real, _ = real_features(images, self._network, count, device, floor=False)
            self._evaluator = Evaluator(self._network, real, draws=0)
            note = self._evaluator.few_images_note(count)
            if note is not None and "fd" in config.evaluation_metrics:
                tqdm.write(f"--num_evaluation_samples: {note}")
        accelerator.wait_for_everyone()
        basis = {
            "reference": reference.identity(),
            "reference_seed": SHUFFLE_SEED,
            "num_samples": count,
            "num_inference_steps": config.num_inference_steps,
            "guidance_scale": config.guidance_scale,
            "prompts": config.validation_prompts and list(config.validation_prompts),
            "seed": config.seed,
            "feature_network": self._network.name,
            "feature_network_sha256": self._network.weights_sha256,
        } | self._drawn.record()
        self._best = {}
        if (metric := config.metric_for_best_model) is not None:
            best = Path(config.output_dir) / "best"
            for each in trainers:
                folder = best / each.name if len(trainers) > 1 else best
                self._best[each.name] = BestModel(
                    folder, metric, basis, sampler.process, base_pipeline
                )

    def __call__(self, trainer: ModelTrainer, step: int) -> dict[str, float]:
        """The scores for the log. Every process of the run calls this."""
        scores = self.scores(trainer)
        names = [score.name for score in scores.values() if not math.isfinite(score.value)]
        if names and trainer.is_main_process:
            tqdm.write(f"step {step}: {', '.join(names)} of {trainer.name} is not finite")
        best = self._best.get(trainer.name)
        if best is not None:
            if main_process_decides(self._accelerator, partial(best.is_better, scores)):
                best.keep(trainer, step, scores)
        return {f"evaluation/{score.name}": score.value for score in scores.values()}

    def scores(self, trainer: ModelTrainer) -> dict[str, Score]:
        """By metric, of the trainer's final weights; NaN where its samples are not finite.

        Every process of the run calls this, and gets the same.
        """
        with trainer.final_weights() as model:
            gathered = gather_object([self._features(trainer, model)])
        by_part = {number: part for process in gathered for number, part in process.items()}

        def score() -> list[Score]:
            features = torch.cat([by_part[number] for number in sorted(by_part)])
            return self._score(features.to(self._evaluator.real.device))

        rows = main_process_decides(self._accelerator, score)
        return dict(zip(self._config.evaluation_metrics, rows, strict=True))

    def _features(self, trainer: ModelTrainer, model: nn.Module | None) -> dict[int, Tensor]:
        """The features of this process's parts of the samples, by the part's number."""
        config = self._config
        parts = parts_of(config.num_evaluation_samples, config.seed)
        if not trainer.is_sharded:
            parts = parts[self._accelerator.process_index :: self._accelerator.num_processes]
        elif model is None:  # only the main process has a model
            parts = []
        options = {
            "num_inference_steps": config.num_inference_steps,
            "batch_size": config.train_batch_size,
            "prompts": config.validation_prompts or self._drawn.prompts,
            "class_labels": self._drawn.class_labels,
            "guidance_scale": config.guidance_scale,
        }
        label, hidden = f"Evaluating {trainer.name}", not trainer.is_main_process
        return {
            part.number: sample_part(self._sampler, model, self._network, part, **options)[1]
            for part in tqdm(parts, desc=label, unit="part", leave=False, disable=hidden)
        }

    def _score(self, features: Tensor) -> list[Score]:
        evaluator, metrics = self._evaluator, self._config.evaluation_metrics
        if features.shape[1] != evaluator.real.shape[1]:
            raise UsageError(
                f"feature_network {self._config.feature_network} gives {features.shape[1]} "
                f"features of a sample and {evaluator.real.shape[1]} of a real image: it must take "
                "both"
            )
        if features.isfinite().all():
            return evaluator.scores(metrics, features)
        return [replace(row, value=math.nan) for row in evaluator.scores(metrics, evaluator.real)]


def _reference(config: RunConfig, dataset: Dataset, encoder: Encoder) -> Dataset:
    if config.reference_dir is not None:
        return open_with_conditions(
            config.reference_dir,
            encoder,
            config.num_evaluation_samples,
            prompts=config.validation_prompts,
            class_labels=None,
            resize_mode=getattr(dataset, "resize_mode", config.resize_mode) or "crop",
            **TOO_FEW,
        )
    if isinstance(dataset, CachedLatents):
        raise UsageError(
            "--evaluation_steps needs images, and the dataset holds latents: name the images' "
            "folder with --reference_dir"
        )
    if len(dataset) < config.num_evaluation_samples:
        count, size = config.num_evaluation_samples, len(dataset)
        raise too_few_images(count, "the dataset", size, **TOO_FEW)
    return dataset
