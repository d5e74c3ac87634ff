"""Samples of a teacher and its students, plain and corrected, and what they score."""

from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from liftplace.analyze.analysis import Samples
from liftplace.analyze.config import AnalyzeConfig
from liftplace.analyze.correct import corrected_by
from liftplace.analyze.trajectory import Moments, TrajectoryFit, corrected_with, recorded_by
from liftplace.common.distributed import distributed_state
from liftplace.common.errors import NonFiniteError
from liftplace.evaluate.collect import collect
from liftplace.evaluate.features import extract_features
from liftplace.evaluate.judge import Judge
from liftplace.evaluate.reference import real_features
from liftplace.evaluate.sampler import Sampler, sampling_options
from liftplace.evaluate.sampling import Answer, answer

KEPT = 12  # samples of each model that are shown
METRICS = ("fd", "kid")
TEACHER = "teacher"
PLAIN, CORRECTED, TRAJECTORY = KINDS = ("plain", "corrected", "trajectory")


class Drawer:
    """Draws a part of everybody's samples from the same noise: first the teacher's, then, once all
    of these are there, the students'.

    Args:
        config: of the samples.
        sampler: on the models' device.
        network: of the features, on a device.
        teacher, students: models on one device; the students by label.
    """

    def __init__(
        self, config: AnalyzeConfig, sampler: Sampler, network: nn.Module, teacher: nn.Module,
        students: dict[str, nn.Module],
    ) -> None:  # fmt: skip
        self.config, self.sampler, self.network = config, sampler, network
        self.teacher, self.students = teacher, students

    def draw_teacher(self, seed: int, first: int, count: int) -> dict[str, Tensor]:
        """Of the teacher what `draw` has of the students, and what the fits of each student on the
        teacher's samples are made of: "moments label", (1, steps, 6, channels)."""
        moments = {label: Moments() for label in self.students}
        how = recorded_by(self.students, moments)
        found = self._draw(TEACHER, self.teacher, how, seed, first, count)
        return found | {f"moments {label}": each.table()[None] for label, each in moments.items()}

    def draw(
        self, fits: dict[str, TrajectoryFit], seed: int, first: int, count: int
    ) -> dict[str, Tensor]:
        """Features (count, features) of each kind of samples of each student, and the images that
        are shown; by "features kind label" and "images kind label".

        Args:
            fits: of the students, by label.
            seed, first, count: of the part.
        """
        found = {}
        for label, student in self.students.items():
            answers = {
                PLAIN: answer,
                CORRECTED: corrected_by(self.teacher, self.config.scope),
                TRAJECTORY: corrected_with(fits[label]),
            }
            for kind, how in answers.items():
                found |= self._draw(f"{kind} {label}", student, how, seed, first, count)
        return found

    def _draw(
        self, name: str, model: nn.Module, how: Answer, seed: int, first: int, count: int
    ) -> dict[str, Tensor]:
        images = self.sampler.sample(
            model, num_samples=count, first=first, seed=seed, description=None, answer=how,
            **sampling_options(self.config),
        )  # fmt: skip
        features = extract_features(images, self.network, description=None)
        if not features.isfinite().all():
            raise NonFiniteError(
                f"samples of {name.removeprefix(f'{PLAIN} ')} have NaN or infinity in them"
            )
        return {f"features {name}": features, f"images {name}": images[: max(0, KEPT - first)]}


def sample_and_score(
    drawer: Drawer, dataset: Dataset, record: dict, device: torch.device
) -> tuple[dict[str, Samples], int] | None:
    """Samples by "teacher" and "kind label", and the principal components in their Frechet
    distance; on the main process, None on others.

    Args:
        drawer: of the samples.
        dataset: of real images, at least as many as samples.
        record: what the samples depend on, see `collect`.
        device: of the scores.
    """
    config, network = drawer.config, drawer.network
    told = (Path(config.output_dir), record, config.num_samples)
    found = collect(*told, drawer.draw_teacher, "teacher")
    fits = {label: _fit(found[f"moments {label}"]) for label in drawer.students}
    found |= collect(*told, partial(drawer.draw, fits), "students")
    if not distributed_state().is_main_process:
        return None
    real, other_real = real_features(dataset, network, config.num_samples, device)
    judge = Judge(network, real, other_real, seed=config.seed)
    samples = {}
    for name in (TEACHER, *(f"{kind} {label}" for label in drawer.students for kind in KINDS)):
        scores = judge.scores(METRICS, found[f"features {name}"].to(device))
        samples[name] = Samples(found[f"images {name}"], tuple(scores))
    return samples, judge.num_components(config.num_samples)


def _fit(tables: Tensor) -> TrajectoryFit:
    """Of the moments of all parts, (parts, steps, 6, channels)."""
    moments = Moments()
    for table in tables:
        moments.add_table(table)
    return moments.fit()
