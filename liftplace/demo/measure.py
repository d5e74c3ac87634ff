"""What is measured of the teacher and of every student, all in the same way."""

import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from liftplace.demo.settings import DemoSettings
from liftplace.evaluate.agreement import Agreement, agreement
from liftplace.evaluate.features import Lite0Features, cached_features, extract_features
from liftplace.evaluate.sampling import sample_images
from liftplace.evaluate.scores import Scores, score
from liftplace.models.costs import count_macs, count_parameters
from liftplace.models.noise import NoiseProcess


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


class Referee:
    """Scores samples against the held-out images, and real images against them (the floor).

    Args:
        train_images, held_out: datasets, whose images are taken evenly: all classes alike.
        num_images: N of every set.
        cache_dir: of the real images' features.
        device: where the feature network runs.
    """

    def __init__(
        self, train_images, held_out, num_images: int, cache_dir: str | Path | None,
        device: str = "cpu",
    ) -> None:  # fmt: skip
        self._network = Lite0Features().to(device)
        self.weights_sha256 = self._network.weights_sha256
        real = [
            cached_features(
                dataset.images(spread(len(dataset), num_images)),
                self._network,
                cache_dir=cache_dir,
                description=f"Features of {name} images",
            )
            for name, dataset in (("held-out", held_out), ("training", train_images))
        ]
        self._held_out = real[0]
        self.floor = score(*real)

    def score(self, samples: Tensor) -> Scores:
        features = extract_features(samples, self._network, description=None)
        return score(self._held_out, features)


def measure(
    models: dict[str, nn.Module],
    labels: dict[str, str],
    process: NoiseProcess,
    referee: Referee,
    settings: DemoSettings,
) -> tuple[dict[str, Measured], dict[str, Tensor]]:
    """Samples every model from the same noise, and scores the samples.

    Args:
        models: by name; the first is the teacher.
        labels: of the progress bars, by the same names.

    Returns:
        What was measured, and the samples, by the same names.
    """
    measured, samples = {}, {}
    for name, model in models.items():
        start = time.perf_counter()
        samples[name] = sample_images(
            model,
            process.sampler(),
            num_samples=settings.num_samples,
            num_inference_steps=settings.num_inference_steps,
            seed=settings.seed,
            description=f"Sampling {labels[name]}",
        )
        seconds = time.perf_counter() - start
        measured[name] = Measured(
            parameters=count_parameters(model),
            macs=count_macs(model),
            scores=referee.score(samples[name]),
            agreement=agreement(samples[name], next(iter(samples.values()))),
            mean=samples[name].mean().item(),
            spread_of_means=samples[name].flatten(1).mean(1).std().item(),
            sampling_seconds=seconds,
        )
    return measured, samples


def spread(size: int, count: int) -> Tensor:
    """``count`` indices spread evenly over ``size``; the digits are sorted by class."""
    if count > size:
        raise ValueError(f"count must be at most {size}, the number of images, got {count}")
    return torch.arange(count) * size // count
