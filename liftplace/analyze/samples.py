"""Samples of a teacher and its students, plain and corrected, and their scores."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from liftplace.analyze.analysis import Samples
from liftplace.analyze.config import AnalyzeConfig
from liftplace.analyze.correction import corrected_by
from liftplace.analyze.trajectory import FitMoments, TrajectoryFit, corrected_with, recorded_by
from liftplace.common.distributed import distributed_state
from liftplace.common.errors import NonFiniteError
from liftplace.evaluate.evaluator import Evaluator
from liftplace.evaluate.features import real_features
from liftplace.evaluate.parts import Part, collect, sample_part
from liftplace.evaluate.sampling import DenoiseFn, Sampler, denoise, sampling_options

KEPT = 12  # samples of each model that are shown
METRICS = ("fd", "kid")
TEACHER = "teacher"
PLAIN, CORRECTED, TRAJECTORY = KINDS = ("plain", "corrected", "trajectory")


@dataclass(frozen=True)
class GroupSampler:
    """Samples parts of a teacher and its students from the same noise: first those of the teacher,
    then, once all of these are there, those of the students.

    Args:
        config: of the samples.
        sampler: on the models' device.
        network: of the features, on a device.
        teacher, students: models on one device; the students by label.
    """

    config: AnalyzeConfig
    sampler: Sampler
    network: nn.Module
    teacher: nn.Module
    students: dict[str, nn.Module]

    def sample_teacher(self, part: Part) -> dict[str, Tensor]:
        """The teacher's features and images as `sample_students` has the students', and for the
        fits of each student on the teacher's samples "moments label", (1, steps, 6, channels)."""
        moments = {label: FitMoments() for label in self.students}
        tensors = self._sample(TEACHER, self.teacher, recorded_by(self.students, moments), part)
        return tensors | {f"moments {label}": each.table()[None] for label, each in moments.items()}

    def sample_students(self, fits: dict[str, TrajectoryFit], part: Part) -> dict[str, Tensor]:
        """Features (count, features) of each kind of samples of each student, and the images that
        are shown; by "features kind label" and "images kind label".

        Args:
            fits: of the students, by label.
            part: which samples.
        """
        tensors = {}
        for label, student in self.students.items():
            kinds = {
                PLAIN: denoise,
                CORRECTED: corrected_by(self.teacher, self.config.scope),
                TRAJECTORY: corrected_with(fits[label]),
            }
            for kind, denoise_fn in kinds.items():
                tensors |= self._sample(f"{kind} {label}", student, denoise_fn, part)
        return tensors

    def _sample(
        self, name: str, model: nn.Module, denoise_fn: DenoiseFn, part: Part
    ) -> dict[str, Tensor]:
        options = sampling_options(self.config) | {"denoise": denoise_fn}
        images, features = sample_part(self.sampler, model, self.network, part, **options)
        if not features.isfinite().all():
            raise NonFiniteError(
                f"samples of {name.removeprefix(f'{PLAIN} ')} have NaN or infinity in them"
            )
        shown = images[: max(0, KEPT - part.first)]
        return {f"features {name}": features, f"images {name}": shown}


def sample_and_score(
    group: GroupSampler, dataset: Dataset, record: dict, device: torch.device
) -> tuple[dict[str, Samples], Evaluator] | None:
    """Samples by "teacher" and "kind label", and what scored them; on the main process, None on
    others.

    Args:
        group: samples the models.
        dataset: of real images, at least as many as samples.
        record: everything that the samples depend on, see `collect`.
        device: of the scores.
    """
    config, network = group.config, group.network
    target = (Path(config.output_dir), record, config.num_samples)
    tensors = collect(*target, group.sample_teacher, "teacher")
    fits = {label: _fit(tensors[f"moments {label}"]) for label in group.students}
    tensors |= collect(*target, partial(group.sample_students, fits), "students")
    if not distributed_state().is_main_process:
        return None
    real, other_real = real_features(dataset, network, config.num_samples, device)
    evaluator = Evaluator(network, real, other_real, seed=config.seed)
    samples = {}
    for name in (TEACHER, *(f"{kind} {label}" for label in group.students for kind in KINDS)):
        scores = evaluator.scores(METRICS, tensors[f"features {name}"].to(device))
        samples[name] = Samples(tensors[f"images {name}"], tuple(scores))
    return samples, evaluator


def _fit(tables: Tensor) -> TrajectoryFit:
    """Of the moments of all parts, (parts, steps, 6, channels)."""
    moments = FitMoments()
    for table in tables:
        moments.add_table(table)
    return moments.fit()
