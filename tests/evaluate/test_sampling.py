import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    UNet2DModel,
)

from liftplace.evaluate.sampling import initial_noise, sample_images


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        block_out_channels=(8,),
        layers_per_block=1,
        norm_num_groups=4,
        down_block_types=["DownBlock2D"],
        up_block_types=["UpBlock2D"],
        add_attention=False,
    )


def sample(model, scheduler, num_samples=5, **arguments):
    arguments = {"num_inference_steps": 4, "seed": 3, "description": None} | arguments
    return sample_images(model, scheduler, num_samples=num_samples, **arguments)


def test_ddim_follows_its_equations(model):
    scheduler = DDIMScheduler(num_train_timesteps=100, clip_sample=False)
    images = initial_noise(2, (1, 8, 8), seed=3)
    steps = [75, 50, 25, 0]
    for step, following in zip(steps, [*steps[1:], -1], strict=True):
        now = scheduler.alphas_cumprod[step]
        later = scheduler.alphas_cumprod[following if following >= 0 else 0]
        with torch.no_grad():
            noise = model(images, step).sample
        clean = (images - (1 - now).sqrt() * noise) / now.sqrt()
        images = later.sqrt() * clean + (1 - later).sqrt() * noise
    # With set_alpha_to_one (the default) the last step ends at the clean image itself.
    torch.testing.assert_close(
        sample(model, scheduler, 2), clean.clamp(-1, 1), rtol=1e-4, atol=1e-4
    )


def test_samples_do_not_depend_on_batch_size_or_on_how_many_follow(model):
    whole = sample(model, DDIMScheduler())
    assert whole.shape == (5, 1, 8, 8) and whole.dtype == torch.float32
    assert whole.abs().max() <= 1
    torch.testing.assert_close(sample(model, DDIMScheduler(), batch_size=2), whole)
    torch.testing.assert_close(sample(model, DDIMScheduler(), 3), whole[:3])
    assert not torch.allclose(sample(model, DDIMScheduler(), seed=4), whole)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers'
@pytest.mark.parametrize(
    "scheduler", [DDPMScheduler(), DPMSolverMultistepScheduler(), FlowMatchEulerDiscreteScheduler()]
)
def test_other_schedulers_repeat_themselves(model, scheduler):
    first = sample(model, scheduler, batch_size=2)
    assert first.isfinite().all()
    assert torch.equal(first, sample(model, scheduler, batch_size=2))


def test_model_and_scheduler_are_left_as_they_were(model):
    scheduler = DDIMScheduler()
    before = scheduler.timesteps.clone()
    model.train()
    sample(model, scheduler, 1)
    assert model.training and torch.equal(scheduler.timesteps, before)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_progress_bar_counts_denoising_steps(model, capfd):
    sample(model, DDIMScheduler(), batch_size=2, description="Drawing")
    assert "Drawing: 100%" in (errors := capfd.readouterr().err) and "12/12" in errors
