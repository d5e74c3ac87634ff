import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler

from liftplace.common.errors import UsageError
from liftplace.models.config import TimestepSampling
from liftplace.models.noise import PREDICTION_TYPES
from liftplace.train import NoiseProcess

SHAPE = (6, 1, 4, 4)


def drawn(prediction_type, seed=0):
    process = NoiseProcess.new(prediction_type, 1000, "linear")
    images = torch.rand(SHAPE, generator=torch.Generator().manual_seed(9)) * 2 - 1
    number, noise = process.draw(SHAPE, torch.Generator().manual_seed(seed))
    return process, images, number, noise


@pytest.mark.parametrize("prediction_type", ["epsilon", "sample", "v_prediction"])
def test_diffusion_follows_its_equations(prediction_type):
    process, images, number, noise = drawn(prediction_type)
    batch = process.noise_images(images, number, noise)
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    abar = (1 - betas).cumprod(0)[number].view(-1, 1, 1, 1)
    signal, spread = abar.sqrt(), (1 - abar).sqrt()
    target = {
        "epsilon": noise.double(),
        "sample": images.double(),
        "v_prediction": signal * noise - spread * images,
    }[prediction_type]
    torch.testing.assert_close(batch.noisy.double(), signal * images + spread * noise, **CLOSE)
    torch.testing.assert_close(batch.target.double(), target, **CLOSE)
    assert torch.equal(batch.timesteps, number)


CLOSE = {"rtol": 1e-4, "atol": 1e-5}


def test_flow_matching_follows_its_equations():
    process, images, number, noise = drawn("flow")
    batch = process.noise_images(images, number, noise)
    sigma = (1 - number.double() / 1000).view(-1, 1, 1, 1)  # number 0 is pure noise
    torch.testing.assert_close(batch.noisy.double(), (1 - sigma) * images + sigma * noise, **CLOSE)
    torch.testing.assert_close(batch.timesteps.double(), 1000 * sigma.flatten(), **CLOSE)
    assert torch.equal(batch.target, noise - images)


@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
def test_draws_follow_from_the_generator_and_cover_the_timesteps(prediction_type):
    process = NoiseProcess.new(prediction_type)
    draws = [
        process.draw((4000, 1, 1, 1), torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)
    ]
    assert torch.equal(draws[0][0], draws[1][0]) and torch.equal(draws[0][1], draws[1][1])
    assert not torch.equal(draws[0][0], draws[2][0])
    number, noise = draws[0]
    assert 0 <= number.min() < 60 and 940 < number.max() < 1000
    assert noise.std() == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
def test_sampling_leaves_the_process_as_it_was(prediction_type):
    process, images, number, noise = drawn(prediction_type)
    before = process.noise_images(images, number, noise)
    process.sampler().set_timesteps(5)
    after = process.noise_images(images, number, noise)
    assert torch.equal(before.noisy, after.noisy)
    assert torch.equal(before.timesteps, after.timesteps)


def test_another_scheduler_of_the_family_keeps_its_noise():
    ddim = DDIMScheduler(beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction")
    process = NoiseProcess(ddim.config)
    assert isinstance(process.scheduler, DDPMScheduler)
    assert process.prediction_type == "v_prediction"
    assert torch.equal(process.scheduler.alphas_cumprod, ddim.alphas_cumprod)


@pytest.mark.parametrize("prediction_type", ["epsilon", "sample", "v_prediction"])
def test_min_snr_weighs_the_error_of_x(prediction_type):
    """min(snr, gamma) times the error of x that an error of the prediction amounts to."""
    process = NoiseProcess.new(prediction_type, timesteps=TimestepSampling(snr_gamma=5.0))
    _, images, _, noise = drawn(prediction_type)
    number = torch.tensor([0, 10, 100, 300, 700, 999])
    batch = process.noise_images(images, number, noise)
    abar = (1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)).cumprod(0)[number]
    snr = abar / (1 - abar)
    # x = (x_t - sqrt(1 - abar) n) / sqrt(abar) = sqrt(abar) x_t - sqrt(1 - abar) v
    per_error = {"epsilon": 1 / snr, "sample": torch.ones(6), "v_prediction": 1 - abar}
    expected = snr.clamp(max=5) * per_error[prediction_type]
    torch.testing.assert_close(batch.weight.double(), expected, rtol=1e-3, atol=1e-6)
    assert NoiseProcess.new(prediction_type).noise_images(images, number, noise).weight is None


def test_min_snr_of_pure_noise_is_finite():
    config = {"prediction_type": "epsilon", "rescale_betas_zero_snr": True}
    process = NoiseProcess(config, TimestepSampling(snr_gamma=5.0))
    batch = process.noise_images(
        torch.zeros(1, 1, 2, 2), torch.tensor([999]), torch.ones(1, 1, 2, 2)
    )
    assert batch.weight.item() == 1


@pytest.mark.parametrize("scheme", ["none", "sigma_sqrt", "logit_normal", "mode", "cosmap"])
def test_flow_matching_densities_and_weights(scheme):
    process = NoiseProcess.new("flow", timesteps=TimestepSampling(weighting_scheme=scheme))
    number, noise = process.draw((8000, 1, 1, 1), torch.Generator().manual_seed(0))
    batch = process.noise_images(torch.zeros_like(noise), number, noise)
    middle = ((number > 250) & (number < 750)).float().mean()
    u = torch.linspace(0, 1, 100_001)
    mode = 1 - u - 1.29 * ((u * torch.pi / 2).cos() ** 2 - 1 + u)  # the paper's equation 20
    shares = {
        "logit_normal": torch.tensor(3.0).log().div(2**0.5).erf(),
        "mode": ((mode > 0.25) & (mode < 0.75)).float().mean(),
    }
    assert middle == pytest.approx(shares.get(scheme, torch.tensor(0.5)).item(), abs=0.03)
    sigma = batch.timesteps.double() / 1000
    expected = {"sigma_sqrt": sigma**-2.0, "cosmap": 2 / torch.pi / (1 - 2 * sigma + 2 * sigma**2)}
    if scheme in expected:
        torch.testing.assert_close(batch.weight.double(), expected[scheme], rtol=1e-4, atol=0)
    else:
        assert batch.weight is None


def test_logit_normal_takes_its_mean():
    """sigmoid(2) = 0.881. Diffusers' sigmas fall with the number, so that is less noise."""
    process = NoiseProcess.new("flow", timesteps=TimestepSampling(logit_mean=2.0, logit_std=0.5))
    number, _ = process.draw((4000, 1, 1, 1), torch.Generator().manual_seed(0))
    assert number.double().median() / 1000 == pytest.approx(0.881, abs=0.01)


@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
@pytest.mark.parametrize("count", [1, 6, 7])
def test_antithetic_timesteps_mirror_each_other(prediction_type, count):
    process = NoiseProcess.new(
        prediction_type, timesteps=TimestepSampling(antithetic_timesteps=True)
    )
    number, noise = process.draw((count, 1, 2, 2), torch.Generator().manual_seed(0))
    half = (count + 1) // 2
    assert number.shape == (count,) and len(noise) == count
    assert torch.equal(number[half:], 999 - number[: count - half])


@pytest.mark.parametrize(
    ("prediction_type", "options", "message"),
    [
        ("flow", {"snr_gamma": 5.0}, "snr_gamma=5.0 weighs a diffusion process.*weighting_scheme"),
        ("sample", {"weighting_scheme": "mode"}, "weighting_scheme=mode is for flow.*snr_gamma"),
    ],
)
def test_a_weighting_for_the_other_kind_is_refused(prediction_type, options, message):
    with pytest.raises(UsageError, match=message):
        NoiseProcess.new(prediction_type, timesteps=TimestepSampling(**options))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"_class_name": "VQDiffusionScheduler"}, "scheduler VQDiffusionScheduler is not suppor"),
        ({"prediction_type": "score"}, "prediction_type must be one of"),
    ],
)
def test_other_processes_are_refused(config, message):
    with pytest.raises(UsageError, match=message):
        NoiseProcess(config)


def test_samples_are_drawn_as_the_model_s_own_scheduler_says():
    own = DDPMScheduler(timestep_spacing="leading", steps_offset=1, clip_sample=False)
    sampler = NoiseProcess(own.config).sampler()
    sampler.set_timesteps(10)
    own.set_timesteps(10)
    assert torch.equal(sampler.timesteps, own.timesteps)
    assert sampler.config.clip_sample is False
    changed = NoiseProcess(own.config).sampler(timestep_spacing="trailing", clip_sample=True)
    changed.set_timesteps(10)
    assert changed.timesteps[0] == 999 and changed.config.clip_sample is True
    assert NoiseProcess.new("epsilon").sampler().config.timestep_spacing == "trailing"
