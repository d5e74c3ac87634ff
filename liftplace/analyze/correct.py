"""What a linear fit makes of a student's output: at one batch, and at every step of sampling."""

from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from liftplace import linear_fit
from liftplace.analyze.carried import carried
from liftplace.analyze.trajectory import TrajectoryFit, corrected_with, trajectory_fit
from liftplace.evaluate.sampling import Answer, answer
from liftplace.families.family import Conditions

__all__ = [
    "Regression", "TrajectoryFit", "carried", "corrected_by", "corrected_with", "regress",
    "trajectory_fit",
]  # fmt: skip

# Far below any variance that float32 outputs have: the normal equations hold to rounding.
NO_EPS = 1e-60


class Regression(NamedTuple):
    """t ~ a + b s by least squares in every row, float64."""

    slope: Tensor  # (rows,): b
    intercept: Tensor  # (rows,): a
    fitted: Tensor  # a + b s, in the student's shape


@torch.no_grad()
def regress(student: Tensor, teacher: Tensor, scope: str = "channel") -> Regression:
    """Fits the teacher's output on the student's, without the eps of the loss.

    Args:
        student, teacher: (batch, channels, height, width), floating.
        scope: a row is a "channel" of an image, or a whole "sample".

    Source: arXiv 2605.19729, LIFT.
    """
    s = student.double()
    fit = linear_fit(s, teacher.double(), scope=scope, eps=NO_EPS)
    rows = s.reshape(len(fit.slope), -1)  # (rows, elements)
    fitted = fit.intercept + fit.slope * rows
    return Regression(fit.slope[:, 0], fit.intercept[:, 0], fitted.view_as(s))


def corrected_by(teacher: nn.Module, scope: str = "channel") -> Answer:
    """For `sample_images`: a student's output s replaced by a + b s, the fit of the teacher's
    output on it at the current sample and step. Not a sampler to use, for it asks the teacher: it
    shows what of the student's error two numbers a row explain. The paper's own correction, fitted
    once on the teacher's trajectory, is `corrected_with`.
    """
    return partial(_corrected, teacher, scope)


def _corrected(
    teacher: nn.Module, scope: str, student: nn.Module, noisy: Tensor, timesteps: Tensor,
    conditions: Conditions,
) -> Tensor:  # fmt: skip
    ours, theirs = (answer(model, noisy, timesteps, conditions) for model in (student, teacher))
    return regress(ours, theirs, scope).fitted.to(ours.dtype)
