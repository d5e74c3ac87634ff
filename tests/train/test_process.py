import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler

from liftplace.errors import UsageError
from liftplace.train import NoiseProcess
from liftplace.train.process import PREDICTION_TYPES

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
