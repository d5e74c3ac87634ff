"""Which part of an error is coarse, and how much of it reaches the image."""

import math

import numpy as np
import torch
from torch import Tensor

from liftplace.analyze.analysis import Carried, Errors


def carry(errors: Errors, timesteps: Tensor, factor: Tensor) -> Carried:
    """Errors at the timesteps of a sampler, carried into the image.

    Between two measured timesteps an error is read off a straight line; beyond the ends it is that
    of the nearest.

    Args:
        errors: measured.
        timesteps, factor: (steps,), of `liftplace.analyze.carried`.
    """
    coarse, fine = (
        torch.from_numpy(np.interp(timesteps.numpy(), errors.timesteps.numpy(), part.numpy()))
        for part in (errors.coarse, errors.fine)
    )
    return Carried(timesteps, factor, factor**2 * coarse, factor**2 * fine)


def half(parts: Errors | Carried, noisy: float, noisier: bool) -> Tensor:
    """Which timesteps are those of a half: above `noisy`, or the others. (timesteps,), bool."""
    return (parts.timesteps > noisy) == noisier


def coarse_share(parts: Errors | Carried, which: Tensor) -> float:
    """The coarse part of the whole, both summed over these timesteps; NaN where there is none."""
    coarse, fine = (part[which].sum().item() for part in (parts.coarse, parts.fine))
    return coarse / (coarse + fine) if coarse + fine > 0 else math.nan


def moved_by(part: Tensor, which: Tensor) -> float:
    """By how much these steps move the image, were their errors independent: root mean square.

    Args:
        part: (steps,), `coarse` or `fine` of Carried.
        which: (steps,), bool.
    """
    return part[which].sum().sqrt().item()
