"""The loss of a learned variance: the variational bound, in which only the variance has a gradient.

Nichol and Dhariwal, arXiv 2102.09672, sections 2.1 and 3.1.
"""

import math

import torch
from torch import Tensor
from torch.special import log_ndtr

from liftplace.common.errors import UsageError
from liftplace.models.noise import FLOW, NoiseProcess, NoisyBatch

HALF_BIN = 1 / 255  # of an 8-bit image in [-1, 1]


class VLBLoss:
    """L_vlb of one timestep a sample, for a variance between the two bounds of its logarithm.

    The model gives v, one number an element: log variance = (v + 1) / 2 log beta_t +
    (1 - v) / 2 log beta~_t (equation 15 with v in [-1, 1], as DiT and diffusers' `learned_range`
    have it). L_t = KL(q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t)), and L_0 the negative log
    likelihood of x_0 by a Gaussian over bins of 1/255, all in bits an element. A sample counts
    num_train_timesteps / 1000 times, which for uniform timesteps makes the term lambda L_vlb with
    their lambda of 0.001 (equation 16).

    Args:
        process: of diffusion.

    Raises:
        UsageError: it is flow matching, whose models have no variance.
    """

    def __init__(self, process: NoiseProcess) -> None:
        if process.prediction_type == FLOW:
            raise UsageError(
                "the student predicts a variance, but its scheduler is one of flow matching, which "
                "has none: give a scheduler of the DDPM family, or --variance_weight 0"
            )
        self._kind = process.prediction_type
        signal = process.scheduler.alphas_cumprod.double()  # abar
        before = torch.cat([signal.new_ones(1), signal[:-1]])
        beta = 1 - signal / before
        posterior = beta * (1 - before) / (1 - signal)
        posterior[0] = posterior[1]  # it is 0: the bound of step 0 is that of step 1
        self._tables = {
            "low": posterior.log(),
            "high": beta.log(),
            "signal": signal.sqrt(),
            "noise": (1 - signal).sqrt(),
            "x0_share": beta * before.sqrt() / (1 - signal),  # of x_0 in the posterior's mean
        }
        self._factor = len(signal) / 1000 / math.log(2)

    def __call__(self, batch: NoisyBatch, output: Tensor, v: Tensor) -> Tensor:
        """
        Args:
            batch: with the noise of the process.
            output: (batch, channels, height, width), what the model predicts; held constant.
            v: as output.

        Returns:
            (batch,), float32.
        """
        low, high = self._rows("low", batch), self._rows("high", batch)
        share = (v.float() + 1) / 2
        log_variance = share * high + (1 - share) * low
        clean = self._clean(batch, batch.target.float())
        error = self._clean(batch, output.detach().float()) - clean
        mean_error = self._rows("x0_share", batch) * error
        of_mean = mean_error.square() * (-log_variance).exp()
        divergence = 0.5 * (log_variance - low - 1 + (low - log_variance).exp() + of_mean)
        # The posterior's mean at step 0 is x_0, so the model's is off by `error`. Elsewhere that
        # is too much for a likelihood, whose gradient would be NaN though it is not used.
        is_first = (batch.timesteps == 0).view(-1, 1, 1, 1)
        error = torch.where(is_first, error, 0)
        first = -_log_likelihood(clean, error, (-0.5 * log_variance).exp())
        return self._factor * torch.where(is_first, first, divergence).flatten(1).mean(1)

    def _clean(self, batch: NoisyBatch, prediction: Tensor) -> Tensor:
        """x_0 by the prediction."""
        if self._kind == "sample":
            return prediction
        signal, noise = self._rows("signal", batch), self._rows("noise", batch)
        if self._kind == "epsilon":
            return (batch.noisy - noise * prediction) / signal
        return signal * batch.noisy - noise * prediction

    def _rows(self, name: str, batch: NoisyBatch) -> Tensor:
        """(batch, 1, 1, 1), float32."""
        table = self._tables[name].to(batch.timesteps.device, torch.float32)
        self._tables[name] = table  # a copy the first time only
        return table[batch.timesteps].view(-1, 1, 1, 1)


def _log_likelihood(x: Tensor, error: Tensor, precision: Tensor) -> Tensor:
    """log of the Gaussian's mass in the bin of x; the outermost bins reach to infinity.

    Args:
        error: of the Gaussian's mean.
        precision: 1 / standard deviation.
    """
    # The Gaussian is symmetric, and its lower tail has more digits than its upper one.
    upper = log_ndtr((HALF_BIN - error.abs()) * precision)
    lower = log_ndtr((-HALF_BIN - error.abs()) * precision)
    inner = upper + (-torch.expm1(lower - upper)).log()
    lowest = log_ndtr((HALF_BIN - error) * precision)
    highest = log_ndtr((HALF_BIN + error) * precision)
    return torch.where(x < -0.999, lowest, torch.where(x > 0.999, highest, inner))
