"""Samples of a teacher and its students, plain and corrected, and what they score."""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from liftplace.analyze.analysis import Samples
from liftplace.analyze.config import AnalyzeConfig
from liftplace.analyze.correct import corrected_by
from liftplace.errors import NonFiniteError
from liftplace.evaluate.collect import collect
from liftplace.evaluate.features import extract_features
from liftplace.evaluate.judge import Judge
from liftplace.evaluate.reference import real_features
from liftplace.evaluate.sampler import Sampler, sampling_options
from liftplace.evaluate.sampling import answer
from liftplace.processes import start_processes

KEPT = 12  # samples of each model that are shown
METRICS = ("fd", "kid")
TEACHER, CORRECTED = "teacher", "corrected "


class Drawer:
    """Draws a part of everybody's samples from the same noise.

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
        correct = corrected_by(teacher, config.scope)
        self.models = {TEACHER: (teacher, answer)}
        for number, student in enumerate(students.values()):
            self.models |= {f"{number}": (student, answer)}
            self.models |= {f"{CORRECTED}{number}": (student, correct)}
        self.labels = {TEACHER: TEACHER}
        for number, label in enumerate(students):
            self.labels |= {f"{number}": label, f"{CORRECTED}{number}": f"{CORRECTED}{label}"}

    def draw(self, seed: int, first: int, count: int) -> dict[str, Tensor]:
        """Features (count, features) of each model, and the images that are shown."""
        found = {}
        for name in self.models:
            images = self._images(name, seed, first, count)
            features = extract_features(images, self.network, description=None)
            if not features.isfinite().all():
                raise NonFiniteError(f"samples of {self.labels[name]} have NaN or infinity in them")
            found[f"features {name}"] = features
            found[f"images {name}"] = images[: max(0, KEPT - first)]
        return found

    def _images(self, name: str, seed: int, first: int, count: int) -> Tensor:
        model, how = self.models[name]
        return self.sampler.sample(
            model, num_samples=count, first=first, seed=seed, description=None, answer=how,
            **sampling_options(self.config),
        )  # fmt: skip


def sample_and_score(
    drawer: Drawer, dataset: Dataset, record: dict, device: torch.device
) -> tuple[dict[str, Samples], int] | None:
    """Samples by the names of `Drawer.models`, and the principal components in their Frechet
    distance; on the main process, None on others.

    Args:
        drawer: of the samples.
        dataset: of real images, at least as many as samples.
        record: what the samples depend on, see `collect`.
        device: of the scores.
    """
    config, network = drawer.config, drawer.network
    found = collect(Path(config.output_dir), record, config.num_samples, drawer.draw)
    if not start_processes().is_main_process:
        return None
    real, other_real = real_features(dataset, network, config.num_samples, device)
    judge = Judge(network, real, other_real, seed=config.seed)
    samples = {}
    for name in drawer.models:
        scores = judge.scores(METRICS, found[f"features {name}"].to(device))
        samples[name] = Samples(found[f"images {name}"], tuple(scores))
    return samples, judge.num_components(config.num_samples)
