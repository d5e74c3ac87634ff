"""How far an error at one step of sampling moves the image, and how much of it is coarse."""

import math

import numpy as np
import torch
from torch import Tensor

from liftplace.analyze.analysis import ModelErrors, PropagatedErrors
from liftplace.data.size import Resolution, height_width
from liftplace.evaluate.sampling import set_timesteps
from liftplace.models.noise import FLOW, NoiseProcess


def propagation_factors(
    process: NoiseProcess, num_inference_steps: int, *, size: Resolution = 1, **changes
) -> tuple[Tensor, Tensor]:
    """Timesteps of sampling (steps,), as the models take them, and how much the final image is
    moved by an error of 1 in the output at that step alone (steps,); both float64.

    Nothing is clipped, and every later step predicts the noise that it would have predicted
    without the error: how the network reacts to a sample that has moved is left out.

    With x_t = alpha x_0 + sigma n and lambda = sigma / alpha, a deterministic step from t to s
    (DDIM with eta = 0, Euler for flow matching) moves y = x / alpha by (lambda_s - lambda_t) n,
    where n is the predicted noise, so that an error e of n moves the image, where alpha = 1 and
    lambda = 0, by (lambda_s - lambda_t) e. For errors that all steps share these add up to lambda
    of the first timestep. An error e of what is predicted is, at a given x_t, an error of n of

        e                   noise;
        alpha e             v = alpha n - sigma x_0, whose x_0 is alpha x_t - sigma v, or the
                            velocity n - x_0 of flow matching, where alpha = 1 - sigma;
        -(alpha / sigma) e  x_0.

    Args:
        process: of the models.
        num_inference_steps: steps of `process.sampler`.
        size: of what is denoised, which some flow schedulers' timesteps depend
            on.
        changes: to the sampler's settings, as `process.sampler` takes them.

    Source: the step of DDIM in these terms is arXiv 2010.02502, equation 14.
    """
    return factors_of_scheduler(
        process.sampler(**changes), process.prediction_type, num_inference_steps, size
    )


def factors_of_scheduler(
    scheduler, prediction_type: str, num_inference_steps: int, size: Resolution = 1
) -> tuple[Tensor, Tensor]:
    """`propagation_factors` of a DDIMScheduler or a FlowMatchEulerDiscreteScheduler, which is
    changed."""
    set_timesteps(scheduler, num_inference_steps, torch.empty(1, 1, *height_width(size)))
    if prediction_type == FLOW:
        sigma, sigma_next = scheduler.sigmas.double().unfold(0, 2, 1).T
        alpha, alpha_next = 1 - sigma, 1 - sigma_next
    else:
        numbers = scheduler.timesteps
        # As DDIM counts, which need not be the next of its timesteps.
        following = numbers - scheduler.config.num_train_timesteps // num_inference_steps
        known = scheduler.alphas_cumprod.double()
        squares = known[numbers]
        squares_next = torch.where(
            following >= 0, known[following.clamp(min=0)], scheduler.final_alpha_cumprod.double()
        )
        alpha, alpha_next = squares.sqrt(), squares_next.sqrt()
        sigma, sigma_next = (1 - squares).sqrt(), (1 - squares_next).sqrt()
    # alpha_next times the shift of y, with alpha multiplied in where it may be 0.
    if prediction_type == "epsilon":
        moved = alpha_next * sigma / alpha - sigma_next
    elif prediction_type == "sample":
        moved = alpha_next - sigma_next * alpha / sigma
    else:
        moved = alpha_next * sigma - sigma_next * alpha
    # A later step that predicts the same noise scales what has moved by alpha_next / alpha.
    scaled = (alpha_next / alpha)[1:].flip(0).cumprod(0).flip(0)
    return scheduler.timesteps.double(), moved * torch.cat([scaled, scaled.new_ones(1)])


def propagate(errors: ModelErrors, timesteps: Tensor, factor: Tensor) -> PropagatedErrors:
    """What errors at the timesteps of a sampler do to the image.

    Between two measured timesteps an error is read off a straight line; beyond the ends it is that
    of the nearest.

    Args:
        errors: measured.
        timesteps, factor: (steps,), of `propagation_factors`.
    """
    coarse, fine = (
        torch.from_numpy(np.interp(timesteps.numpy(), errors.timesteps.numpy(), part.numpy()))
        for part in (errors.coarse, errors.fine)
    )
    return PropagatedErrors(timesteps, factor, factor**2 * coarse, factor**2 * fine)


def in_half(parts: ModelErrors | PropagatedErrors, noisy: float, noisier: bool) -> Tensor:
    """Which timesteps are those of a half: above `noisy`, or the others. (timesteps,), bool."""
    return (parts.timesteps > noisy) == noisier


def coarse_share(parts: ModelErrors | PropagatedErrors, which: Tensor) -> float:
    """The coarse part of the whole, both summed over these timesteps; NaN where there is none."""
    coarse, fine = (part[which].sum().item() for part in (parts.coarse, parts.fine))
    return coarse / (coarse + fine) if coarse + fine > 0 else math.nan


def moved_by(part: Tensor, which: Tensor) -> float:
    """By how much these steps move the image, were their errors independent: root mean square.

    Args:
        part: (steps,), `coarse` or `fine` of PropagatedErrors.
        which: (steps,), bool.
    """
    return part[which].sum().sqrt().item()
