"""The scores of samples, each with its interval and with the score of real images."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import torch
from torch import Tensor, nn

from liftplace.evaluate.features import cached_features, extract_features
from liftplace.evaluate.intervals import half_sample_interval
from liftplace.evaluate.manifold import share_inside
from liftplace.evaluate.scores import (
    Moments,
    Scores,
    few_images_note,
    frechet_distance,
    inception_score,
    kernel_distance,
    principal_axes,
    score,
    sensible_components,
)

Metric = Callable[..., float]  # of one or two sets of features, or of what else is scored


@dataclass(frozen=True)
class Score:
    """One row of the table."""

    name: str
    value: float
    low: float | None  # of its interval; None where there is none
    high: float | None
    better: str  # "lower" or "higher"
    floor: float | None = None  # the same score of as many real images
    unrelated: float | None = None  # agreement of the teacher's samples from different noise


@dataclass(frozen=True)
class Evaluator:
    """Scores samples against real images, by features of both.

    Args:
        network: of the features, see `liftplace.evaluate.networks`; on their device.
        real: (N, features) of real images; or their moments, which fd alone can be made of.
        other_real: (N, features) of other real images, for the floor; None where there are none.
        neighbours: k of precision and recall.
        draws, level, seed: of the intervals; none with 0 draws.
    """

    network: nn.Module
    real: Tensor | Moments
    other_real: Tensor | None = None
    neighbours: int = 3
    draws: int = 100
    level: float = 0.95
    seed: int = 0

    @classmethod
    def of_images(
        cls,
        network: nn.Module,
        real: Tensor,
        other_real: Tensor,
        *,
        cache_dir: str | Path | None = None,
        **options,
    ) -> "Evaluator":
        """From the images themselves, whose features are kept on disk.

        Args:
            network: of the features.
            real, other_real: (N, channels, height, width) in [-1, 1].
            cache_dir: of `liftplace.evaluate.features.cached_features`.
            options: of `Evaluator`.
        """
        features = (
            cached_features(
                images, network, cache_dir=cache_dir, description="Features of real images"
            )
            for images in (real, other_real)
        )
        return cls(network, *features, **options)

    def score_images(self, images: Tensor) -> Scores:
        """Both distances of as many samples (N, channels, height, width) as there are real images,
        without intervals."""
        return score(self.real, extract_features(images, self.network, description=None))

    @cached_property
    def floor(self) -> Scores:
        """Both distances between the two sets of real images."""
        return score(self.real, self.other_real)

    def num_components(self, num_images: int) -> int:
        """Principal components of the real features that the Frechet distance of so many samples
        uses: all for FID, which is defined so."""
        features = num_features(self.real)
        return features if is_fid(self.network) else sensible_components(num_images, features)

    def few_images_note(self, num_images: int) -> str | None:
        """Of `liftplace.evaluate.scores`, for samples that are so many."""
        options = {"all_features": is_fid(self.network)}
        return few_images_note(num_images, num_features(self.real), **options)

    def scores(self, metrics: Sequence[str], generated: Tensor) -> list[Score]:
        """One row for each of fd, kid, is, precision and recall that is in `metrics`, in its order;
        `generated`: (N, features) of the samples."""
        rows = {
            "fd": self._fd,
            "kid": self._kid,
            "is": self._is,
            "precision": self._precision,
            "recall": self._recall,
        }
        return [rows[name](generated) for name in metrics if name in rows]

    def agreement(self, pairs: dict[str, Tensor]) -> list[Score]:
        """Two rows; `pairs`: of `liftplace.evaluate.agreement.pair_differences`."""
        rows = []
        for kind in ("pixel", "feature"):
            row = self._score(f"{kind} error", _root_mean, (pairs[kind],), "lower", lowest=0)
            rows.append(replace(row, unrelated=_root_mean(pairs[f"unrelated_{kind}"])))
        return rows

    def clip(self, similarities: Tensor) -> Score:
        """One row; `similarities`: (N,), of `liftplace.evaluate.clip`."""
        return self._score("CLIP score", _mean, (similarities,), "higher", lowest=0, highest=100)

    def _fd(self, generated: Tensor) -> Score:
        name = self.network.distance
        axes = principal_axes(self.real, self.num_components(len(generated)))
        project = partial(_project, axes)
        if isinstance(self.real, Moments):  # no subsets can be drawn: the interval lacks them
            distance = partial(frechet_distance, self.real.project(axes))
            return self._score(name, distance, (project(generated),), "lower", lowest=0)
        return self._against_real(name, frechet_distance, generated, "lower", project, lowest=0)

    def _kid(self, generated: Tensor) -> Score:
        name = "KID" if is_fid(self.network) else f"KID-{self.network.name}"
        return self._against_real(name, kernel_distance, generated, "lower")

    def _precision(self, generated: Tensor) -> Score:
        def precision(real: Tensor, points: Tensor) -> float:
            return share_inside(points, real, k=self.neighbours)

        return self._against_real("precision", precision, generated, "higher", lowest=0, highest=1)

    def _recall(self, generated: Tensor) -> Score:
        recall = partial(share_inside, k=self.neighbours)
        return self._against_real("recall", recall, generated, "higher", lowest=0, highest=1)

    def _is(self, generated: Tensor) -> Score:
        name = "IS" if is_fid(self.network) else f"IS-{self.network.name}"
        logits = self._logits(generated)
        floor = inception_score(self._logits(self.real))
        return self._score(name, inception_score, (logits,), "higher", floor, lowest=1)

    @torch.no_grad()
    def _logits(self, features: Tensor) -> Tensor:
        return self.network.logits(features)

    def _against_real(
        self,
        name: str,
        metric: Metric,
        generated: Tensor,
        better: str,
        project: Callable[[Tensor], Tensor] = lambda features: features,
        **bounds: float,
    ) -> Score:
        real, floor = project(self.real), None
        if self.other_real is not None:
            floor = metric(real, project(self.other_real))
        return self._score(name, metric, (real, project(generated)), better, floor, **bounds)

    def _score(
        self,
        name: str,
        metric: Metric,
        sets: tuple[Tensor, ...],
        better: str,
        floor: float | None = None,
        *,
        lowest: float = -math.inf,
        highest: float = math.inf,
    ) -> Score:
        if self.draws == 0:
            return Score(name, metric(*sets), None, None, better, floor)
        options = {"level": self.level, "draws": self.draws, "seed": self.seed}
        interval = half_sample_interval(metric, *sets, **options, description=f"Interval of {name}")
        low, high = (float(min(max(end, lowest), highest)) for end in (interval.low, interval.high))
        return Score(name, metric(*sets), low, high, better, floor)


def num_features(real: Tensor | Moments) -> int:
    return len(real.mean) if isinstance(real, Moments) else real.shape[1]


def is_fid(network: nn.Module) -> bool:
    """Whether the Frechet distance on these features is FID, which takes all of them."""
    return network.distance == "FID"


def _project(axes: Tensor, features: Tensor) -> Tensor:
    return features.double() @ axes


def _mean(values: Tensor) -> float:
    return values.double().mean().item()


def _root_mean(squares: Tensor) -> float:
    return squares.double().mean().sqrt().item()
