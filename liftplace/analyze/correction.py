"""A student's output corrected by its linear fit to the teacher's, batch by batch."""

from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from liftplace import linear_fit
from liftplace.evaluate.sampling import DenoiseFn, denoise
from liftplace.families.family import Conditions

# The least that linear_fit takes, and below any variance that outputs have: the normal equations
# hold to rounding.
NO_EPS = torch.finfo(torch.float32).tiny


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


def corrected_by(teacher: nn.Module, scope: str = "channel") -> DenoiseFn:
    """For `sample_images`: a student's output s replaced by a + b s, the fit of the teacher's
    output on it at the current sample and step. This runs the teacher at every step, so it is no
    way to sample: it shows how much of the student's error two numbers a row explain. The paper's
    own correction, fitted once on the teacher's trajectory, is
    `liftplace.analyze.trajectory.corrected_with`.
    """
    return partial(_corrected, teacher, scope)


def _corrected(
    teacher: nn.Module,
    scope: str,
    student: nn.Module,
    noisy: Tensor,
    timesteps: Tensor,
    conditions: Conditions,
) -> Tensor:
    inputs = (noisy, timesteps, conditions)
    output, target = denoise(student, *inputs), denoise(teacher, *inputs)
    return regress(output, target, scope).fitted.to(output.dtype)
