"""Images from a diffusion model."""

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from liftplace.train.models import predict


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
) -> Tensor:
    """Runs the reverse process of ``model`` from noise that ``seed`` fixes.

    Two models of one shape start from the same noise; with a deterministic scheduler (DDIM)
    their samples can be compared image by image, whatever the batch size.

    Args:
        model: a diffusers model with ``sample_size`` and ``in_channels`` in its config.
        scheduler: a diffusers scheduler. A copy is used: its state is left as it was.
        num_samples: images to make, at least 1.
        num_inference_steps: denoising steps.
        seed: of the initial noise, and of the noise that a stochastic scheduler adds.
        batch_size: images at a time.
        device: where the model runs; where its weights are if not given.
        description: label of the progress bar; ``None`` for no bar.

    Returns:
        (num_samples, in_channels, sample_size, sample_size), float32, on the CPU, in [-1, 1].
    """
    device = torch.device(device) if device is not None else next(model.parameters()).device
    scheduler = type(scheduler).from_config(scheduler.config)
    scheduler.set_timesteps(num_inference_steps)
    generator = torch.Generator().manual_seed(seed)
    noise = initial_noise(num_samples, _image_shape(model), seed)
    batches = noise.split(batch_size)
    was_training = model.training
    model.eval().to(device)
    bar = tqdm(
        total=len(batches) * len(scheduler.timesteps), desc=description, disable=description is None
    )
    samples = []
    with bar:
        for batch in batches:
            scheduler.set_timesteps(num_inference_steps)  # multistep schedulers keep a history
            images = batch.to(device) * getattr(scheduler, "init_noise_sigma", 1.0)
            for timestep in scheduler.timesteps:
                images = _denoise(model, scheduler, images, timestep, generator)
                bar.update()
            samples.append(images.float().clamp(-1, 1).cpu())
    model.train(was_training)
    return torch.cat(samples)


def _denoise(
    model: nn.Module, scheduler, images: Tensor, timestep: Tensor, generator: torch.Generator
) -> Tensor:
    scaled = images
    if hasattr(scheduler, "scale_model_input"):
        scaled = scheduler.scale_model_input(images, timestep)
    timesteps = timestep.to(images.device).expand(len(images))
    output = predict(model, scaled, timesteps)
    return scheduler.step(output, timestep, images, generator=generator).prev_sample


def _image_shape(model: nn.Module) -> tuple[int, int, int]:
    size = model.config.sample_size
    height, width = (size, size) if isinstance(size, int) else size
    return model.config.in_channels, height, width
