"""Scores students of one teacher, all alike: see `SCORED`."""

import json
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.study.grid import LEADING, SCORED, Cell
from benchmarks.study.rows import own_columns
from benchmarks.study.sheet import COUNT
from liftplace.analyze.correction import corrected_by
from liftplace.analyze.model_errors import measure_errors, spread_timesteps
from liftplace.analyze.trajectory import corrected_with, trajectory_fit
from liftplace.data import load_dataset
from liftplace.evaluate.agreement import agreement
from liftplace.evaluate.evaluator import Evaluator
from liftplace.evaluate.features import Lite0Features
from liftplace.evaluate.sampling import initial_noise, sample_images
from liftplace.evaluate.scores import Scores
from liftplace.evaluate.subsets import spread
from liftplace.models.costs import count_macs, count_parameters
from liftplace.models.loading import LoadedModel, predict

DIVERGED = 1.0  # error to the teacher over the teacher's power at any timestep: what 0 has


@dataclass(frozen=True)
class Scored:
    """A cell after one of its stages.

    Attributes:
        row, timesteps: as the files of a study have them.
        pictures: (COUNT, ...) samples of the "student" and, from the same noise, of the "teacher";
            empty where none are to be kept.
    """

    row: dict[str, Any]
    timesteps: list[dict[str, Any]]
    pictures: dict[str, Tensor]

    @classmethod
    def of(cls, kept: dict) -> "Scored":
        """From what `benchmarks.study.train` wrote."""
        pictures = {name: torch.tensor(values) for name, values in kept["pictures"].items()}
        return cls(**kept | {"pictures": pictures})


@dataclass(frozen=True)
class Sampler:
    """How samples are drawn: DDIM's steps, their spacing, and whether x_0 is clipped."""

    steps: int
    spacing: str = "trailing"
    clip: bool = True


def samplers_of(cell: Cell) -> dict[str, Sampler]:
    """By the ending of their columns."""
    samplers = {"": Sampler(cell.sampling_steps)}
    if cell.settings.get("samplers") == "both":
        samplers["_leading"] = Sampler(LEADING["num_inference_steps"], "leading", clip=False)
    return samplers


class CellEvaluator:
    """Scores students of one teacher.

    Args:
        teacher: on the device.
        dataset: name or folder of the images.
        device: "cpu" or "cuda".
    """

    def __init__(self, teacher: LoadedModel, dataset: str, device: str) -> None:
        self.teacher = teacher.model.eval()
        self.process = teacher.process()
        self.resolution = self.teacher.config.sample_size
        train, held_out = (
            load_dataset(dataset, resolution=self.resolution, split=split)
            for split in ("train", "test")
        )
        real = (_evenly(images, SCORED["num_samples"]) for images in (held_out, train))
        self.evaluator = Evaluator.of_images(Lite0Features().to(device), *real)
        self.error_images = _evenly(held_out, SCORED["num_error_images"]).to(device)
        self.error_timesteps = spread_timesteps(self.process, SCORED["num_timesteps"])
        self._of_teacher: dict[Sampler, tuple[Tensor, Scores]] = {}

    def score(
        self, cell: Cell, stage: int, model: nn.Module, failed: bool, training: dict[str, float]
    ) -> Scored:
        """Of a student that was trained for `stage` steps; `training`: columns of its training."""
        model.eval()
        row = own_columns(cell) | {"hash": cell.hash, "learning_rate": cell.rate, "seed": cell.seed}
        row |= {"step": stage, "status": "not finite", "parameters": count_parameters(model)}
        row |= {"macs": count_macs(model), **training}
        row["share"] = row["parameters"] / count_parameters(self.teacher)
        row["settings"] = json.dumps(dict(cell.settings), sort_keys=True, default=list)
        floor = self.evaluator.floor
        row |= {"fd_floor": floor.fd_lite0, "kid_floor": floor.kid}
        samplers = samplers_of(cell)
        for ending, sampler in samplers.items():
            scores = self._teachers(sampler)[1]
            row |= {f"fd_teacher{ending}": scores.fd_lite0, f"kid_teacher{ending}": scores.kid}
        if failed:
            return Scored(row, [], {})
        samples = {ending: self._sample(model, sampler) for ending, sampler in samplers.items()}
        task_error = self._task_error(model)
        finite = [drawn.isfinite().all() for drawn in samples.values()]
        if not all(finite) or not np.isfinite(task_error):
            return Scored(row, [], {})
        for ending, drawn in samples.items():
            row |= self._of_samples(drawn, self._teachers(samplers[ending])[0], ending)
        row |= self._corrected(cell, model, samplers)
        errors = self._errors(model)
        diverged = (errors.total / errors.power).max().item() >= DIVERGED
        row |= {"status": "diverged" if diverged else "ok", "task_error": task_error}
        row["teacher_error"] = (errors.total.sum() / errors.power.sum()).item()
        pictures = {}
        if cell.phase == "confirm" and cell.seed == 0:
            last = list(samplers)[-1]
            teachers = self._teachers(samplers[last])[0]
            pictures = {"student": samples[last][:COUNT], "teacher": teachers[:COUNT]}
        return Scored(row, _by_timestep(cell, stage, errors), pictures)

    def _errors(self, model: nn.Module):
        measure = partial(measure_errors, numbers=self.error_timesteps, group_sizes=())
        return measure(
            {"student": model},
            self.teacher,
            self.process,
            self.error_images,
            seed=SCORED["errors_seed"],
            description=None,
        )["student"]

    def _of_samples(self, samples: Tensor, teachers: Tensor, ending: str) -> dict[str, float]:
        scores = self.evaluator.score_images(samples)
        difference = samples.mean((2, 3)) - teachers.mean((2, 3))
        return {
            f"fd{ending}": scores.fd_lite0,
            f"kid{ending}": scores.kid,
            f"pixel_error{ending}": agreement(samples, teachers).pixel_error,
            f"mean_error{ending}": difference.square().mean().sqrt().item(),
        }

    def _corrected(
        self, cell: Cell, model: nn.Module, samplers: dict[str, Sampler]
    ) -> dict[str, float]:
        """FD of samples corrected by fits of the teacher, at the student's own sample and along the
        teacher's trajectory (the paper's); of the first seed, since each step asks the teacher."""
        sampler = samplers.get("_leading")
        if not cell.corrected or sampler is None or cell.seed != 0:
            return {}
        fit = trajectory_fit(
            self.teacher, model, self._scheduler(sampler), **_sampling_options(sampler)
        )
        own = self._sample(model, sampler, denoise=corrected_by(self.teacher))
        along = self._sample(model, sampler, denoise=corrected_with(fit))
        return {
            "fd_corrected_own": self.evaluator.score_images(own).fd_lite0,
            "fd_corrected_teacher": self.evaluator.score_images(along).fd_lite0,
        }

    def _teachers(self, sampler: Sampler) -> tuple[Tensor, Scores]:
        """The teacher's samples, and their scores."""
        if sampler not in self._of_teacher:
            samples = self._sample(self.teacher, sampler)
            self._of_teacher[sampler] = samples, self.evaluator.score_images(samples)
        return self._of_teacher[sampler]

    def _scheduler(self, sampler: Sampler):
        return self.process.sampler(timestep_spacing=sampler.spacing, clip_sample=sampler.clip)

    def _sample(self, model: nn.Module, sampler: Sampler, **options) -> Tensor:
        options |= _sampling_options(sampler)
        return sample_images(model, self._scheduler(sampler), **options)

    @torch.no_grad()
    def _task_error(self, model: nn.Module) -> float:
        """Squared error to the target on held-out images, over the target's mean square."""
        images, device = self.error_images, self.error_images.device
        noise = initial_noise(len(images), tuple(images.shape[1:]), SCORED["errors_seed"])
        error = power = 0.0
        for number in self.error_timesteps:
            numbers = torch.full((len(images),), number, device=device)
            batch = self.process.noise_images(images, numbers, noise.to(device))
            output = predict(model, batch.noisy, batch.timesteps)
            error += (output - batch.target).double().square().mean().item()
            power += batch.target.double().square().mean().item()
        return error / power


def _sampling_options(sampler: Sampler) -> dict[str, Any]:
    options = {"num_samples": SCORED["num_samples"], "seed": SCORED["samples_seed"]}
    return options | {"num_inference_steps": sampler.steps, "description": None}


def _evenly(dataset, count: int) -> Tensor:
    return dataset.images(spread(len(dataset), count))


def _by_timestep(cell: Cell, stage: int, errors) -> list[dict[str, Any]]:
    names = ("power", "total", "coarse", "fine")
    columns = {"timestep": errors.timesteps} | {name: getattr(errors, name) for name in names}
    columns["slope"] = errors.slope[:, :, 1].mean(1)
    columns["intercept"] = errors.intercept[:, :, 1].mean(1)
    lines = zip(*(column.tolist() for column in columns.values()), strict=True)
    key = {"hash": cell.hash, "step": stage}
    return [key | dict(zip(columns, line, strict=True)) for line in lines]
