"""Images from a diffusion model."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from liftplace.families import family_of_model
from liftplace.families.family import Conditions
from liftplace.models.loading import predict

Answer = Callable[[nn.Module, Tensor, Tensor, Conditions], Tensor]


def answer(model: nn.Module, noisy: Tensor, timesteps: Tensor, conditions: Conditions) -> Tensor:
    """`predict`, computed in the type of the model's weights; float32, or float64 of these."""
    dtype = next(model.parameters()).dtype
    given = {
        name: value.to(dtype) if value.is_floating_point() else value
        for name, value in conditions.items()
    }
    output = predict(model, noisy.to(dtype), timesteps, given)
    return output.to(torch.promote_types(dtype, torch.float32))


def initial_noise(num_samples: int, shape: tuple[int, int, int], seed: int) -> Tensor:
    """Standard normal (num_samples, *shape) on the CPU; a larger num_samples only appends."""
    generator = torch.Generator().manual_seed(seed)
    return torch.stack([torch.randn(shape, generator=generator) for _ in range(num_samples)])


@torch.no_grad()
def sample_images(
    model: nn.Module,
    scheduler,
    *,
    num_samples: int,
    num_inference_steps: int,
    seed: int = 0,
    batch_size: int = 64,
    device: torch.device | str | None = None,
    description: str | None = "Sampling",
    size: int | None = None,
    conditions: Conditions | None = None,
    null_conditions: Conditions | None = None,
    guidance_scale: float = 1.0,
    decode: Callable[[Tensor], Tensor] | None = None,
    answer: Answer = answer,
) -> Tensor:
    """Runs the reverse process of ``model`` from noise that ``seed`` fixes.

    Two models of one shape start from the same noise; with a deterministic scheduler (DDIM)
    their samples can be compared image by image, whatever the batch size.

    Args:
        model: a diffusers model of a family.
        scheduler: a diffusers scheduler. A copy is used: its state is left as it was.
        num_samples: images to make, at least 1.
        num_inference_steps: denoising steps.
        seed: of the initial noise, and of the noise that a stochastic scheduler adds.
        batch_size: images at a time.
        device: where the model runs; where its weights are if not given.
        description: label of the progress bar; ``None`` for no bar.
        size: height and width of what is denoised, for a model that takes any.
        conditions, null_conditions: by name, (num_samples, ...), on any device; the second are
            the empty ones of classifier-free guidance.
        guidance_scale: 1 for no guidance.
        decode: from latents to images in [-1, 1].
        answer: from the model, its input, timesteps and conditions to the output that is used, for
            each branch of the guidance.

    Returns:
        (num_samples, channels, height, width), float32, on the CPU, in [-1, 1].
    """
    device = torch.device(device) if device is not None else next(model.parameters()).device
    scheduler = type(scheduler).from_config(scheduler.config)
    generator = torch.Generator().manual_seed(seed)
    noise = initial_noise(num_samples, _noise_shape(model, size), seed)
    start(scheduler, num_inference_steps, noise)
    was_training = model.training
    model.eval().to(device)
    steps = -(-num_samples // batch_size) * len(scheduler.timesteps)
    samples = []
    with tqdm(total=steps, desc=description, disable=description is None) as bar:
        for first in range(0, num_samples, batch_size):
            part = slice(first, first + batch_size)
            given = {name: value[part].to(device) for name, value in (conditions or {}).items()}
            empty = None
            if guidance_scale != 1 and null_conditions is not None:
                empty = {name: value[part].to(device) for name, value in null_conditions.items()}
            start(scheduler, num_inference_steps, noise)  # multistep schedulers keep a history
            images = noise[part].to(device) * getattr(scheduler, "init_noise_sigma", 1.0)
            for timestep in scheduler.timesteps:
                output = _denoise(
                    partial(answer, model), scheduler, images, timestep, given, empty,
                    guidance_scale,
                )  # fmt: skip
                images = scheduler.step(output, timestep, images, generator=generator).prev_sample
                bar.update()
            images = images if decode is None else decode(images)
            samples.append(images.float().clamp(-1, 1).cpu())
    model.train(was_training)
    return torch.cat(samples)


def _denoise(
    answer: Callable[[Tensor, Tensor, Conditions], Tensor],
    scheduler,
    images: Tensor,
    timestep: Tensor,
    conditions: Conditions,
    null_conditions: Conditions | None,
    guidance_scale: float,
) -> Tensor:
    """The model's output, guided: Ho and Salimans, arXiv 2207.12598, equation 6."""
    scaled = images
    if hasattr(scheduler, "scale_model_input"):
        scaled = scheduler.scale_model_input(images, timestep)
    timesteps = timestep.to(images.device).expand(len(images))
    output = answer(scaled, timesteps, conditions)
    if null_conditions is None:
        return output
    empty = answer(scaled, timesteps, null_conditions)
    return empty + guidance_scale * (output - empty)


def start(scheduler, num_inference_steps: int, noise: Tensor) -> None:
    """Sets the timesteps of samples that start at this noise (N, channels, height, width)."""
    if not scheduler.config.get("use_dynamic_shifting"):
        scheduler.set_timesteps(num_inference_steps)
        return
    # Flux shifts its timesteps by the number of tokens, patches of 2 x 2: linear between two.
    config = scheduler.config
    tokens = noise.shape[2] * noise.shape[3] / 4
    slope = (config.max_shift - config.base_shift) / (
        config.max_image_seq_len - config.base_image_seq_len
    )
    shift = config.base_shift + slope * (tokens - config.base_image_seq_len)
    scheduler.set_timesteps(num_inference_steps, mu=shift)


def _noise_shape(model: nn.Module, size: int | None) -> tuple[int, int, int]:
    family = family_of_model(model)
    size = size or family.sample_size(model.config)
    return family.in_channels(model.config), size, size
