"""Scores students of one teacher, all alike: see `SCORED`."""

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.study.grid import LEADING, SCORED, Cell
from liftplace.analyze.correction import corrected_by
from liftplace.analyze.model_errors import measure_errors, spread_timesteps
from liftplace.analyze.trajectory import corrected_with, trajectory_fit
from liftplace.data import load_dataset
from liftplace.demo.measure import spread
from liftplace.evaluate.agreement import agreement
from liftplace.evaluate.evaluator import Evaluator
from liftplace.evaluate.features import Lite0Features
from liftplace.evaluate.sampling import initial_noise, sample_images
from liftplace.evaluate.scores import Scores
from liftplace.models.costs import count_macs, count_parameters
from liftplace.models.loading import LoadedModel, predict

DIVERGED = 1.0  # error to the teacher over the teacher's power at any timestep: what 0 has
SHOWN = 8  # samples in a picture


@dataclass(frozen=True)
class Scored:
    """A cell after one of its stages.

    Attributes:
        row, timesteps: as the files of a study have them.
        pictures: (SHOWN, ...) samples of the "student" and, from the same noise, of the "teacher";
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
class Way:
    """How samples are drawn: DDIM's steps, their spacing, and whether x_0 is clipped."""

    steps: int
    spacing: str = "trailing"
    clip: bool = True


def ways_of(cell: Cell) -> dict[str, Way]:
    """By the ending of their columns."""
    ways = {"": Way(cell.sampling_steps)}
    if cell.settings.get("samplers") == "both":
        ways["_leading"] = Way(LEADING["num_inference_steps"], "leading", clip=False)
    return ways


class Judge:
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
        count = SCORED["num_samples"]
        real = (each.images(spread(len(each), count)) for each in (held_out, train))
        self.evaluator = Evaluator.of_images(Lite0Features().to(device), *real)
        images = held_out.images(spread(len(held_out), SCORED["num_error_images"]))
        self.images = images.to(device)
        self.numbers = spread_timesteps(self.process, SCORED["num_timesteps"])
        self._of_teacher: dict[Way, tuple[Tensor, Scores]] = {}

    def score(
        self, cell: Cell, stage: int, model: nn.Module, failed: bool, seen: dict[str, float]
    ) -> Scored:
        """Of a student that was trained for `stage` steps; `seen` are columns of its training."""
        model.eval()
        row = {
            **cell.labels, "study": cell.study, "phase": cell.phase, "hash": cell.hash,
            "learning_rate": cell.rate, "seed": cell.seed, "step": stage, "status": "not finite",
            "fd_floor": self.evaluator.floor.fd_lite0, "kid_floor": self.evaluator.floor.kid,
            "parameters": count_parameters(model), "macs": count_macs(model),
            "share": count_parameters(model) / count_parameters(self.teacher),
            "settings": json.dumps(dict(cell.settings), sort_keys=True, default=list), **seen,
        }  # fmt: skip
        ways = ways_of(cell)
        for ending, way in ways.items():
            scores = self._teachers(way)[1]
            row |= {f"fd_teacher{ending}": scores.fd_lite0, f"kid_teacher{ending}": scores.kid}
        if failed:
            return Scored(row, [], {})
        drawn = {ending: self._sample(model, way) for ending, way in ways.items()}
        task_error = self._task_error(model)
        finite = [samples.isfinite().all() for samples in drawn.values()]
        if not all(finite) or not np.isfinite(task_error):
            return Scored(row, [], {})
        for ending, samples in drawn.items():
            row |= self._of_samples(samples, self._teachers(ways[ending])[0], ending)
        row |= self._corrected(cell, model, ways)
        errors = measure_errors(
            {"student": model}, self.teacher, self.process, self.images, numbers=self.numbers,
            group_sizes=(), seed=SCORED["errors_seed"], description=None,
        )["student"]  # fmt: skip
        worst = (errors.total / errors.power).max().item()
        row |= {
            "status": "diverged" if worst >= DIVERGED else "ok",
            "task_error": task_error,
            "teacher_error": (errors.total.sum() / errors.power.sum()).item(),
        }  # fmt: skip
        ending = list(ways)[-1]
        shown = {
            "student": drawn[ending][:SHOWN], "teacher": self._teachers(ways[ending])[0][:SHOWN]
        }  # fmt: skip
        is_shown = cell.phase == "confirm" and cell.seed == 0
        return Scored(row, _by_timestep(cell, stage, errors), shown if is_shown else {})

    def _of_samples(self, samples: Tensor, teachers: Tensor, ending: str) -> dict[str, float]:
        scores = self.evaluator.score_images(samples)
        means, theirs = (images.mean((2, 3)) for images in (samples, teachers))
        return {
            f"fd{ending}": scores.fd_lite0,
            f"kid{ending}": scores.kid,
            f"pixel_error{ending}": agreement(samples, teachers).pixel_error,
            f"mean_error{ending}": (means - theirs).square().mean().sqrt().item(),
        }

    def _corrected(self, cell: Cell, model: nn.Module, ways: dict[str, Way]) -> dict[str, float]:
        """FD of samples corrected by fits of the teacher, at the student's own sample and along the
        teacher's trajectory (the paper's); of the first seed, since each step asks the teacher."""
        way = ways.get("_leading")
        if not cell.corrected or way is None or cell.seed != 0:
            return {}
        options = {"num_samples": SCORED["num_samples"], "num_inference_steps": way.steps,
                   "seed": SCORED["samples_seed"]}  # fmt: skip
        fit = trajectory_fit(self.teacher, model, self._scheduler(way), description=None, **options)
        own = self._sample(model, way, denoise=corrected_by(self.teacher))
        along = self._sample(model, way, denoise=corrected_with(fit))
        return {
            "fd_corrected_own": self.evaluator.score_images(own).fd_lite0,
            "fd_corrected_teacher": self.evaluator.score_images(along).fd_lite0,
        }

    def _teachers(self, way: Way) -> tuple[Tensor, Scores]:
        """The teacher's samples, and their scores."""
        if way not in self._of_teacher:
            samples = self._sample(self.teacher, way)
            self._of_teacher[way] = samples, self.evaluator.score_images(samples)
        return self._of_teacher[way]

    def _scheduler(self, way: Way):
        return self.process.sampler(timestep_spacing=way.spacing, clip_sample=way.clip)

    def _sample(self, model: nn.Module, way: Way, **options) -> Tensor:
        return sample_images(
            model, self._scheduler(way), num_samples=SCORED["num_samples"],
            num_inference_steps=way.steps, seed=SCORED["samples_seed"], description=None, **options,
        )  # fmt: skip

    @torch.no_grad()
    def _task_error(self, model: nn.Module) -> float:
        """Squared error to the target on held-out images, over the target's mean square."""
        images, device = self.images, self.images.device
        noise = initial_noise(len(images), tuple(images.shape[1:]), SCORED["errors_seed"])
        error = power = 0.0
        for number in self.numbers:
            numbers = torch.full((len(images),), number, device=device)
            batch = self.process.noise_images(images, numbers, noise.to(device))
            output = predict(model, batch.noisy, batch.timesteps)
            error += (output - batch.target).double().square().mean().item()
            power += batch.target.double().square().mean().item()
        return error / power


def _by_timestep(cell: Cell, stage: int, errors) -> list[dict[str, Any]]:
    columns = {
        "timestep": errors.timesteps, "power": errors.power, "total": errors.total,
        "coarse": errors.coarse, "fine": errors.fine,
        "slope": errors.slope[:, :, 1].mean(1), "intercept": errors.intercept[:, :, 1].mean(1),
    }  # fmt: skip
    values = zip(*(column.tolist() for column in columns.values()), strict=True)
    return [
        {"hash": cell.hash, "step": stage, **dict(zip(columns, row, strict=True))} for row in values
    ]
