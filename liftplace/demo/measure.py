"""The measurements of the teacher and of every student, the same for all."""

import time
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from liftplace.demo.settings import DemoSettings
from liftplace.evaluate.agreement import Agreement, agreement
from liftplace.evaluate.evaluator import Evaluator
from liftplace.evaluate.features import Lite0Features
from liftplace.evaluate.sampling import Sampler
from liftplace.evaluate.scores import Scores
from liftplace.evaluate.subsets import spread
from liftplace.models.costs import count_macs, count_parameters


@dataclass(frozen=True)
class Measured:
    """One model's row of the table."""

    parameters: int
    macs: int  # multiply-accumulates of one forward pass of one image
    scores: Scores  # against held-out images
    agreement: Agreement  # with the teacher's samples from the same noise
    mean: float  # of all pixels of the samples, in [-1, 1]
    spread_of_means: float  # standard deviation of each sample's own mean
    sampling_seconds: float


def demo_evaluator(
    train_images, held_out, num_images: int, cache_dir: str | Path | None
) -> Evaluator:
    """Scores samples against held-out images; the floor is of training images.

    Args:
        train_images, held_out: datasets, whose images are taken evenly: all classes alike.
        num_images: N of every set.
        cache_dir: of the real images' features.
    """
    images = [each.images(spread(len(each), num_images)) for each in (held_out, train_images)]
    return Evaluator.of_images(Lite0Features(), *images, cache_dir=cache_dir)


def measure(
    models: dict[str, nn.Module],
    labels: dict[str, str],
    sampler: Sampler,
    evaluator: Evaluator,
    settings: DemoSettings,
) -> tuple[dict[str, Measured], dict[str, Tensor]]:
    """Samples every model from the same noise, and scores the samples.

    Args:
        models: by name; the first is the teacher.
        labels: of the progress bars, by the same names.
        sampler: of the teacher's noise process.
        evaluator: of as many real images as samples.

    Returns:
        The measurements and the samples, by the same names.
    """
    measured, samples = {}, {}
    for name, model in models.items():
        start = time.perf_counter()
        samples[name] = sampler.sample(
            model,
            num_samples=settings.num_samples,
            num_inference_steps=settings.num_inference_steps,
            seed=settings.seed,
            description=f"Sampling {labels[name]}",
        )
        seconds = time.perf_counter() - start
        measured[name] = Measured(
            parameters=count_parameters(model),
            macs=count_macs(model),
            scores=evaluator.score_images(samples[name]),
            agreement=agreement(samples[name], next(iter(samples.values()))),
            mean=samples[name].mean().item(),
            spread_of_means=samples[name].flatten(1).mean(1).std().item(),
            sampling_seconds=seconds,
        )
    return measured, samples
