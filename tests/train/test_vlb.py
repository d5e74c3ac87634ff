import math

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from liftplace.common.errors import UsageError
from liftplace.models.noise import NoiseProcess
from liftplace.train.vlb import VLBLoss

KINDS = ["epsilon", "sample", "v_prediction"]


def drawn(process, number, seed=0, scale=0.1):
    """Clean latents, their batch, a prediction that is somewhat off, and v."""
    generator = torch.Generator().manual_seed(seed)
    shape = (len(number), 2, 4, 4)
    clean, noise, off, v = (torch.randn(shape, generator=generator) for _ in range(4))
    clean = clean.clamp(-1, 1)  # so that some are on either end
    batch = process.noise_images(clean, torch.tensor(number), noise)
    return clean, batch, batch.target + scale * off, torch.tanh(v)


def gaussians(process, batch, t, clean, prediction, v):
    """q(x_{t-1} | x_t, x_0) and the model's, in float64, by the formulas of DDPM (Ho et al., arXiv
    2006.11239, equations 6 and 7)."""
    betas = process.scheduler.betas.double()
    alphas = 1 - betas
    abar = torch.cumprod(alphas, 0)
    before = abar[t - 1] if t > 0 else torch.tensor(1.0).double()
    tilde = (1 - before) / (1 - abar[t]) * betas[t]
    bound = tilde if t > 0 else (1 - abar[0]) / (1 - abar[1]) * betas[1]
    x = batch.noisy.double()

    def mean(x0):
        by_x0 = before.sqrt() * betas[t] / (1 - abar[t])
        return by_x0 * x0 + alphas[t].sqrt() * (1 - before) / (1 - abar[t]) * x

    a, s = abar[t].sqrt(), (1 - abar[t]).sqrt()
    p = prediction.double()
    x0 = {"epsilon": (x - s * p) / a, "sample": p, "v_prediction": a * x - s * p}
    share = (v.double() + 1) / 2
    variance = torch.exp(share * betas[t].log() + (1 - share) * bound.log())
    model = Normal(mean(x0[process.prediction_type]), variance.sqrt())
    true = Normal(mean(clean.double()), tilde.sqrt()) if t > 0 else None
    return true, model


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("t", [1, 2, 40, 500, 999])
def test_divergence_of_gaussians(kind, t):
    process = NoiseProcess.new(kind)
    clean, batch, prediction, v = drawn(process, [t, t])
    true, model = gaussians(process, batch, t, clean, prediction, v)
    expected = kl_divergence(true, model).flatten(1).mean(1) / math.log(2)
    term = VLBLoss(process)(batch, prediction, v)
    torch.testing.assert_close(term.double(), expected, rtol=2e-3, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_first_step_is_a_likelihood_over_bins(kind):
    process = NoiseProcess.new(kind)
    scale = 0.01 if kind == "sample" else 1.0  # all about a standard deviation
    clean, batch, prediction, v = drawn(process, [0], scale=scale)
    _, model = gaussians(process, batch, 0, clean, prediction, v)
    x = clean.double()
    upper, lower = model.cdf(x + 1 / 255), model.cdf(x - 1 / 255)
    upper, lower = torch.where(x > 0.999, 1.0, upper), torch.where(x < -0.999, 0.0, lower)
    expected = -(upper - lower).log2().flatten(1).mean(1)
    term = VLBLoss(process)(batch, prediction, v)
    torch.testing.assert_close(term.double(), expected, rtol=1e-3, atol=1e-5)


def test_each_sample_has_its_own_timestep():
    process = NoiseProcess.new("epsilon", 500)
    _, batch, prediction, v = drawn(process, [0, 3, 499])
    term = VLBLoss(process)
    together = term(batch, prediction, v)
    for i in range(3):
        row = slice(i, i + 1)
        one = type(batch)(batch.noisy[row], batch.timesteps[row], batch.target[row])
        torch.testing.assert_close(together[row], term(one, prediction[row], v[row]))


def test_a_shorter_process_counts_less():
    """lambda L_vlb sums over the timesteps, and the mean over them is what is drawn."""
    betas = torch.linspace(1e-4, 0.02, 1000).tolist()
    terms = []
    for steps in (1000, 500):
        config = {
            "_class_name": "DDPMScheduler",
            "num_train_timesteps": steps,
            "trained_betas": betas[:steps],
        }
        process = NoiseProcess(config)
        _, batch, prediction, v = drawn(process, [100])
        terms.append(VLBLoss(process)(batch, prediction, v))
    torch.testing.assert_close(terms[0], 2 * terms[1])


def test_only_the_variance_has_a_gradient():
    process = NoiseProcess.new("epsilon")
    _, batch, prediction, _ = drawn(process, [2, 400])
    v = torch.zeros_like(prediction, requires_grad=True)
    prediction.requires_grad_()
    term = VLBLoss(process)(batch, prediction, v)
    term.mean().backward()
    assert prediction.grad is None
    assert v.grad.isfinite().all() and v.grad.any()


@pytest.mark.parametrize("v", [-3.0, 0.0, 3.0])
def test_wild_predictions_stay_finite(v):
    process = NoiseProcess.new("epsilon")
    _, batch, prediction, _ = drawn(process, [0, 1, 999])
    value = torch.full_like(prediction, v).requires_grad_()
    term = VLBLoss(process)(batch, prediction * 50, value)
    term.sum().backward()
    assert term.isfinite().all() and value.grad.isfinite().all()
    assert (value.grad < 0).any()  # so far off, a larger variance is better


def test_flow_matching_has_no_variance():
    with pytest.raises(UsageError, match="flow matching, which has none: .*--variance_weight 0"):
        VLBLoss(NoiseProcess.new("flow"))
