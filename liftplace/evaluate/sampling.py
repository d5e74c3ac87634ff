"""Images from a model of any family: noise, scheduler, guidance, and the encoders around it."""

import json
import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from liftplace.common.errors import UsageError
from liftplace.common.seeds import generator_for
from liftplace.data.encoder import Encoder
from liftplace.data.size import Resolution, height_width
from liftplace.families import family_of_model
from liftplace.families.family import Conditions
from liftplace.models.loading import predict
from liftplace.models.noise import NoiseProcess

DenoiseFn = Callable[[nn.Module, Tensor, Tensor, Conditions], Tensor]
OPTIONS = ("num_inference_steps", "batch_size", "class_labels", "prompts", "guidance_scale")


PIXELS_AT_ONCE = 1024 * 1024  # of images: one of SD3 or SDXL, four of 512, sixteen of 256
MOST_AT_ONCE = 64


def default_batch_size(resolution: Resolution, most: int = MOST_AT_ONCE) -> int:
    """How many images of this size are made at a time, where the user does not say: as
    many as have the pixels of one large one, which is what diffusers' pipelines make by default."""
    return max(1, min(most, PIXELS_AT_ONCE // math.prod(height_width(resolution))))


def denoise(model: nn.Module, noisy: Tensor, timesteps: Tensor, conditions: Conditions) -> Tensor:
    """`predict`, computed in the type of the model's weights; float32, or float64 of these."""
    dtype = next(model.parameters()).dtype
    conditions = {
        name: value.to(dtype) if value.is_floating_point() else value
        for name, value in conditions.items()
    }
    output = predict(model, noisy.to(dtype), timesteps, conditions)
    return output.to(torch.promote_types(dtype, torch.float32))


def initial_noise(num_samples: int, shape: tuple[int, int, int], seed: int) -> Tensor:
    """Standard normal (num_samples, *shape) on the CPU; a larger num_samples only appends."""
    generator = torch.Generator().manual_seed(seed)
    return torch.stack([torch.randn(shape, generator=generator) for _ in range(num_samples)])


class Sampler:
    """Samples models of one noise process and one encoder, by `sample_images`.

    Args:
        process: its deterministic scheduler is used.
        encoder: makes conditions and decodes latents.
    """

    def __init__(self, process: NoiseProcess, encoder: Encoder) -> None:
        self.process = process
        self.encoder = encoder

    def sample(
        self,
        model: nn.Module,
        *,
        num_samples: int,
        first: int = 0,
        class_labels: Sequence[int] | None = None,
        prompts: Sequence[str] | None = None,
        guidance_scale: float = 1.0,
        batch_size: int | None = None,
        **options,
    ) -> Tensor:
        """Images (num_samples, channels, height, width), float32, on the CPU, in [-1, 1].

        Args:
            model: student or teacher.
            first: number of the first one, where these are a part of more samples: classes and
                prompts go on in turn from there.
            class_labels, prompts: of the samples, in turn; all classes or no text by default.
            guidance_scale: of classifier-free guidance; 1 for none.
            batch_size: images at a time, on which they do not depend; `default_batch_size` if None.
            options: of `sample_images`.

        Raises:
            UsageError: conditions or guidance that the model does not take.
        """
        null, numbers = None, range(first, first + num_samples)
        batch_size = batch_size or default_batch_size(self.encoder.resolution)
        if guidance_scale != 1 and self._is_conditioned:
            null = self.encoder.null_conditions(num_samples)
        return sample_images(
            model,
            self.process.sampler(),
            num_samples=num_samples,
            batch_size=batch_size,
            size=self.encoder.shape[1:],
            conditions=self._conditions(numbers, class_labels, prompts, batch_size),
            null_conditions=null,
            guidance_scale=guidance_scale,
            decode=self.encoder.decode,
            **options,
        )

    def labels(
        self,
        num_samples: int,
        *,
        class_labels: Sequence[int] | None = None,
        prompts: Sequence[str] | None = None,
    ) -> list[str] | None:
        """What the first samples are of: their prompts or the numbers of their classes, as `sample`
        takes them; None for a model that takes neither, or without prompts."""
        numbers = range(num_samples)
        if self.encoder.takes_captions:
            return in_turn(prompts, numbers) if prompts else None
        if not self.encoder.takes_labels:
            return None
        return [str(label) for label in self._labels(numbers, class_labels).tolist()]

    def record(self) -> dict:
        """Class and settings of the scheduler, as JSON has them; what is not finite is text."""
        scheduler = self.process.sampler()
        # diffusers notes under names with an underscore where a config came from.
        settings = {name: x for name, x in scheduler.config.items() if not name.startswith("_")}
        text = json.dumps({"class": type(scheduler).__name__, **settings}, default=str)
        return json.loads(text, parse_constant=str)

    @property
    def _is_conditioned(self) -> bool:
        return self.encoder.takes_captions or self.encoder.takes_labels

    def _conditions(self, numbers: range, class_labels, prompts, batch_size: int) -> dict:
        encoder, items = self.encoder, {}
        if prompts is not None and not encoder.takes_captions:
            raise UsageError(f"{encoder.folder} takes no text: leave out --prompts")
        if class_labels is not None and not encoder.takes_labels:
            raise UsageError(f"{encoder.folder} takes no classes: leave out --class_labels")
        if encoder.takes_labels:
            items["class_labels"] = self._labels(numbers, class_labels)
        if not encoder.takes_captions:
            items["images"] = torch.empty(len(numbers), 0)  # says how many
            return encoder.conditions(items)
        encoder.mention_long(prompts or [""], "prompts")
        texts = in_turn(prompts or [""], numbers)
        parts = [
            encoder.conditions({"captions": texts[first : first + batch_size]})
            for first in range(0, len(numbers), batch_size)
        ]
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    def _labels(self, numbers: range, class_labels: Sequence[int] | None) -> Tensor:
        classes = self.encoder.family.num_classes(self.encoder.config)
        labels = torch.tensor(class_labels or range(classes))
        if not 0 <= labels.min() <= labels.max() < classes:
            raise UsageError(
                f"--class_labels must be in 0 ... {classes - 1}, got {list(class_labels)}"
            )
        return labels[torch.tensor(numbers) % len(labels)]


def in_turn(values: Sequence[str], numbers: range) -> list[str]:
    """The values of these samples, where all samples take them in turn."""
    return [values[number % len(values)] for number in numbers]


def sampling_options(config) -> dict:
    """Those settings of a command that are arguments of `Sampler.sample`."""
    return {name: getattr(config, name) for name in OPTIONS}


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
    size: Resolution | None = None,
    conditions: Conditions | None = None,
    null_conditions: Conditions | None = None,
    guidance_scale: float = 1.0,
    decode: Callable[[Tensor], Tensor] | None = None,
    denoise: DenoiseFn = denoise,
) -> Tensor:
    """Runs the reverse process of ``model`` from noise that ``seed`` fixes.

    Two models of one shape start from the same noise; with a deterministic scheduler (DDIM)
    their samples can be compared image by image. Every image has noise of its own: it does not
    depend on the batch size, beyond rounding, nor on how many follow it.

    Args:
        model: a diffusers model of a family.
        scheduler: a diffusers scheduler. A copy is used: its state is left as it was.
        num_samples: images to make, at least 1.
        num_inference_steps: denoising steps.
        seed: of the initial noise, and of the noise that a stochastic scheduler adds.
        batch_size: images at a time.
        device: where the model runs; where its weights are if not given.
        description: label of the progress bar; ``None`` for no bar.
        size: of what is denoised, for a model that takes any.
        conditions, null_conditions: by name, (num_samples, ...), on any device; the second are
            the empty ones of classifier-free guidance.
        guidance_scale: 1 for no guidance.
        decode: from latents to images in [-1, 1].
        denoise: gives the output from the model, its input, timesteps and conditions; it is called
            for each branch of the guidance.

    Returns:
        (num_samples, channels, height, width), float32, on the CPU, in [-1, 1].
    """
    device = torch.device(device) if device is not None else next(model.parameters()).device
    scheduler = type(scheduler).from_config(scheduler.config)
    generators = [generator_for("cpu", seed, "step", number) for number in range(num_samples)]
    noise = initial_noise(num_samples, _noise_shape(model, size), seed)
    set_timesteps(scheduler, num_inference_steps, noise)
    was_training = model.training
    model.eval().to(device)
    steps = -(-num_samples // batch_size) * len(scheduler.timesteps)
    samples = []
    with tqdm(total=steps, desc=description, disable=description is None) as bar:
        for first in range(0, num_samples, batch_size):
            part = slice(first, first + batch_size)
            conditional = slice_conditions(conditions or {}, part, device)
            unconditional = None
            if guidance_scale != 1 and null_conditions is not None:
                unconditional = slice_conditions(null_conditions, part, device)
            branches = (conditional, unconditional, guidance_scale)
            set_timesteps(
                scheduler, num_inference_steps, noise
            )  # multistep schedulers keep a history
            images = noise[part].to(device) * getattr(scheduler, "init_noise_sigma", 1.0)
            for timestep in scheduler.timesteps:
                output = _guided(partial(denoise, model), scheduler, images, timestep, *branches)
                images = scheduler.step(
                    output, timestep, images, generator=generators[part]
                ).prev_sample
                bar.update()
            images = images if decode is None else decode(images)
            samples.append(images.float().clamp(-1, 1).cpu())
    model.train(was_training)
    return torch.cat(samples)


def slice_conditions(
    conditions: Conditions, part: slice, device: torch.device | str
) -> dict[str, Tensor]:
    """The conditions (N, ...) of some of the images, on a device."""
    return {name: value[part].to(device) for name, value in conditions.items()}


def _guided(
    denoise: Callable[[Tensor, Tensor, Conditions], Tensor],
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
    output = denoise(scaled, timesteps, conditions)
    if null_conditions is None:
        return output
    unconditional = denoise(scaled, timesteps, null_conditions)
    return unconditional + guidance_scale * (output - unconditional)


def set_timesteps(scheduler, num_inference_steps: int, noise: Tensor) -> None:
    """Sets the timesteps of samples that start at this noise (N, channels, height, width).

    Raises:
        UsageError: more steps than the noise process has timesteps.
    """
    most = scheduler.config.num_train_timesteps
    if num_inference_steps > most:
        raise UsageError(
            f"num_inference_steps is {num_inference_steps}, but the noise process has {most} "
            f"timesteps: give at most {most}"
        )
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


def _noise_shape(model: nn.Module, size: Resolution | None) -> tuple[int, int, int]:
    family = family_of_model(model)
    size = size or family.sample_size(model.config)
    return family.in_channels(model.config), *height_width(size)
