import json
import math

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    UNet2DModel,
)

from liftplace.common.errors import UsageError
from liftplace.data.encoder import Encoder
from liftplace.evaluate.sampling import Sampler, default_batch_size, initial_noise, sample_images
from liftplace.models.loading import load_model
from liftplace.models.noise import NoiseProcess
from tests.families.pipelines import PIPELINES, tiny_pipeline


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


@pytest.mark.parametrize("scheduler", [DDIMScheduler(), DDPMScheduler()])  # which adds noise
def test_samples_do_not_depend_on_batch_size_or_on_how_many_follow(model, scheduler):
    whole = sample(model, scheduler)
    assert whole.shape == (5, 1, 8, 8) and whole.dtype == torch.float32
    assert whole.abs().max() <= 1
    for size in (1, 2):
        torch.testing.assert_close(sample(model, scheduler, batch_size=size), whole)
    torch.testing.assert_close(sample(model, scheduler, 3), whole[:3])
    assert not torch.allclose(sample(model, scheduler, seed=4), whole)


@pytest.mark.parametrize("name", PIPELINES)
def test_no_family_lets_images_of_one_batch_touch(name, tmp_path):
    changes = {"num_class_embeds": 4} if name == "UNet2DModel" else {}
    resolution = 16 if name == "FluxTransformer2DModel" else None
    sampler, model = sampler_of(name, tmp_path, resolution=resolution, **changes)
    options = {"num_samples": 3, "num_inference_steps": 2, "seed": 1, "description": None}
    if sampler.encoder.takes_captions:
        options |= {"prompts": ["a cat", "", "a much longer caption"], "guidance_scale": 3.0}
    together, alone = (sampler.sample(model, batch_size=size, **options) for size in (None, 1))
    assert (together - alone).abs().max() < 1e-4 < (together[1:] - together[:-1]).abs().max()


def test_images_at_a_time_by_their_size():
    sizes = {16: 64, 64: 64, 128: 64, 256: 16, 512: 4, 1024: 1, 2048: 1}
    assert {side: default_batch_size(side) for side in sizes} == sizes
    assert default_batch_size(64, most=32) == 32 and default_batch_size(512, most=32) == 4


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


RUN = {"num_samples": 3, "num_inference_steps": 2, "description": None}


def sampler_of(name, folder, resolution=None, **changes):
    loaded = load_model(tiny_pipeline(name, folder, **changes))
    return Sampler(loaded.process(), Encoder(loaded, resolution)), loaded.model


def test_text_and_guidance_count(tmp_path):
    sampler, model = sampler_of("UNet2DConditionModel", tmp_path)
    cat = sampler.sample(model, prompts=["a cat"], **RUN)
    assert cat.shape == (3, 3, 16, 16) and cat.abs().max() <= 1
    assert torch.allclose(
        sampler.sample(model, prompts=["a cat"], batch_size=2, **RUN), cat, atol=1e-5
    )
    in_turn = sampler.sample(model, prompts=["a cat", "a dog"], **RUN)
    same = [torch.allclose(a, b, atol=1e-5) for a, b in zip(cat, in_turn, strict=True)]
    assert same == [True, False, True]
    guided = sampler.sample(model, prompts=["a cat"], guidance_scale=5.0, **RUN)
    assert not torch.allclose(guided, cat, atol=1e-3)


def test_classes_in_turn(tmp_path):
    sampler, model = sampler_of("UNet2DModel", tmp_path, num_class_embeds=10)
    every = sampler.sample(model, **RUN)
    assert torch.allclose(sampler.sample(model, class_labels=[0, 1, 2], **RUN), every)
    assert not torch.allclose(sampler.sample(model, class_labels=[0, 0, 2], **RUN), every)
    # A part of more samples goes on where the one before it ended.
    part = sampler.sample(model, class_labels=[5, 7], first=1, **RUN)
    assert torch.allclose(part, sampler.sample(model, class_labels=[7, 5, 7], **RUN))
    with pytest.raises(UsageError, match=r"--class_labels must be in 0 ... 9, got \[10\]"):
        sampler.sample(model, class_labels=[10], **RUN)
    with pytest.raises(UsageError, match="has no label for no class"):
        sampler.sample(model, guidance_scale=2.0, **RUN)


def test_flux_at_a_resolution_of_its_own(tmp_path):
    sampler, model = sampler_of("FluxTransformer2DModel", tmp_path, resolution=24)
    assert sampler.sample(model, prompts=["a cat"], **RUN).shape == (3, 3, 24, 24)


def test_conditions_that_the_model_does_not_take(tmp_path):
    sampler, model = sampler_of("UNet2DModel", tmp_path)
    with pytest.raises(UsageError, match="takes no text: leave out --prompts"):
        sampler.sample(model, prompts=["a cat"], **RUN)
    with pytest.raises(UsageError, match="takes no classes: leave out --class_labels"):
        sampler.sample(model, class_labels=[1], **RUN)


def test_the_record_is_strict_json(tmp_path):
    sampler, _ = sampler_of("PixArtTransformer2DModel", tmp_path)
    unlimited = Sampler(NoiseProcess({"sample_max_value": math.inf}), sampler.encoder)
    record = unlimited.record()
    assert record["class"] == "DDIMScheduler" and record["sample_max_value"] == "Infinity"
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert not any(name.startswith("_") for name in record)
