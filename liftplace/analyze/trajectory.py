"""The paper's correction of a student: one linear fit a step and channel, on the teacher's path."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from liftplace.evaluate.sampling import DenoiseFn, denoise, sample_images
from liftplace.families.family import Conditions

CONSTANT = 1e-24  # a variance below this share of the mean square is rounding of float64


@dataclass(frozen=True)
class TrajectoryFit:
    """t ~ a + b s at every step of sampling, one fit for all samples and pixels of a channel.

    Source: arXiv 2605.19729, regression-corrected sampling: six numbers a step for colour.
    """

    timesteps: Tensor  # (steps,), float64, as the models take them, in the sampler's order
    slope: Tensor  # (steps, channels), float64: b
    intercept: Tensor  # (steps, channels), float64: a


class FitMoments:
    """Sums over the samples so far, by timestep. `fit` needs nothing else."""

    def __init__(self) -> None:
        # (5, channels), float64: count, means of s and t, sums of (s - mean s)^2 and of
        # (s - mean s)(t - mean t)
        self.by_timestep: dict[float, Tensor] = {}

    def add(self, timestep: float, student: Tensor, teacher: Tensor) -> None:
        """Counts outputs (samples, channels, height, width) at one timestep."""
        s, t = (x.double().transpose(0, 1).flatten(1) for x in (student, teacher))
        mean_s, mean_t = s.mean(1), t.mean(1)
        s, t = s - mean_s[:, None], t - mean_t[:, None]
        count = torch.full_like(mean_s, s.shape[1])
        moments = torch.stack([count, mean_s, mean_t, (s * s).sum(1), (s * t).sum(1)])
        self._join(timestep, moments.cpu())

    def table(self) -> Tensor:
        """(timesteps, 5, channels) and, first in each row, the timestep itself: (timesteps, 6,
        channels), float64."""
        rows = self.by_timestep.items()
        return torch.stack([torch.cat([torch.full_like(x[:1], t), x]) for t, x in rows])

    def add_table(self, table: Tensor) -> None:
        """Adds the `table` of other moments."""
        for row in table:
            self._join(row[0, 0].item(), row[1:])

    def fit(self) -> TrajectoryFit:
        """By least squares; where a student's output is constant b = 0 and a is the mean of t."""
        moments = torch.stack(list(self.by_timestep.values()))
        count, mean_s, mean_t, square, product = moments.unbind(1)
        varies = square > CONSTANT * count * mean_s.square()
        slope = torch.where(varies, product / square.where(varies, torch.ones(())), 0)
        timesteps = torch.tensor(list(self.by_timestep), dtype=torch.float64)
        return TrajectoryFit(timesteps, slope, mean_t - slope * mean_s)

    def _join(self, timestep: float, moments: Tensor) -> None:
        """Chan, Golub and LeVeque, "Algorithms for Computing the Sample Variance", 1983."""
        if timestep not in self.by_timestep:
            self.by_timestep[timestep] = moments
            return
        one, other = self.by_timestep[timestep], moments
        count = one[0] + other[0]
        apart = other[1:3] - one[1:3]
        between = one[0] * other[0] / count * apart[0]
        means = one[1:3] + apart * other[0] / count
        sums = one[3:] + other[3:] + between * apart
        self.by_timestep[timestep] = torch.cat([count[None], means, sums])


def recorded_by(students: Mapping[str, nn.Module], moments: Mapping[str, FitMoments]) -> DenoiseFn:
    """For `sample_images` of a teacher: its own output. The students run at the same samples, and
    their outputs are added to `moments`, by the students' names."""
    return partial(_recorded, students, moments)


def _recorded(
    students: Mapping[str, nn.Module],
    moments: Mapping[str, FitMoments],
    teacher: nn.Module,
    noisy: Tensor,
    timesteps: Tensor,
    conditions: Conditions,
) -> Tensor:
    target = denoise(teacher, noisy, timesteps, conditions)
    for name, student in students.items():
        output = denoise(student, noisy, timesteps, conditions)
        moments[name].add(timesteps[0].item(), output, target)
    return target


def trajectory_fit(
    teacher: nn.Module,
    student: nn.Module,
    scheduler,
    *,
    description: str | None = "Fitting on the teacher's trajectory",
    **options,
) -> TrajectoryFit:
    """Samples the teacher and fits its outputs on the student's, both at the teacher's samples.

    Args:
        teacher, student: models of one shape, on one device, in any type.
        scheduler: a diffusers scheduler, deterministic.
        description, options: of `sample_images`, as the student will be sampled. Under guidance
            both branches share a fit.
    """
    moments = FitMoments()
    was_training = student.training
    student.eval()
    sample_images(
        teacher,
        scheduler,
        denoise=recorded_by({"student": student}, {"student": moments}),
        description=description,
        **options,
    )
    student.train(was_training)
    return moments.fit()


def corrected_with(fit: TrajectoryFit) -> DenoiseFn:
    """For `sample_images`: a student's output s replaced by a + b s of its step. It needs no
    teacher: the fit is a table of two numbers a step and channel.

    Raises:
        ValueError: a timestep that the fit does not have.
    """
    places = {timestep: place for place, timestep in enumerate(fit.timesteps.tolist())}
    return partial(_corrected, fit, places)


def _corrected(
    fit: TrajectoryFit,
    places: Mapping[float, int],
    student: nn.Module,
    noisy: Tensor,
    timesteps: Tensor,
    conditions: Conditions,
) -> Tensor:
    timestep = timesteps[0].item()
    if timestep not in places:
        known = ", ".join(f"{each:g}" for each in places)
        raise ValueError(
            f"the fit has no timestep {timestep:g}, only {known}: sample with the scheduler and "
            "num_inference_steps that it was made with"
        )
    output = denoise(student, noisy, timesteps, conditions)
    slope, intercept = (
        values[places[timestep]].to(output.device).view(1, -1, 1, 1)
        for values in (fit.slope, fit.intercept)
    )
    return (intercept + slope * output.double()).to(output.dtype)
