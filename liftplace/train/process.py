"""The noise process: from clean images to what a model sees and should answer."""

from dataclasses import dataclass

import torch
from diffusers import DDIMScheduler, DDPMScheduler, FlowMatchEulerDiscreteScheduler
from diffusers.schedulers import KarrasDiffusionSchedulers
from diffusers.training_utils import compute_density_for_timestep_sampling
from torch import Tensor

from liftplace.errors import UsageError

FLOW = "flow"
PREDICTION_TYPES = ("epsilon", "sample", "v_prediction", FLOW)
DDPM_FAMILY = frozenset(scheduler.name for scheduler in KarrasDiffusionSchedulers)


@dataclass(frozen=True)
class NoisyBatch:
    """What a model is given and what it should answer; everything on one device."""

    noisy: Tensor  # (batch, channels, height, width)
    timesteps: Tensor  # (batch,)
    target: Tensor  # as noisy


class NoiseProcess:
    """Draws timesteps and noise, and makes noisy images and targets of them.

    Diffusion: x_t = sqrt(abar_t) x + sqrt(1 - abar_t) n, t uniform, target n, x or
    sqrt(abar_t) n - sqrt(1 - abar_t) x by the scheduler's `prediction_type`. Flow matching:
    x_t = (1 - sigma) x + sigma n, logit-normal in t, target n - x.

    Args:
        config: a diffusers scheduler's config, as in scheduler_config.json: one of the DDPM family
            (DDPM, DDIM, PNDM, ...) or FlowMatchEulerDiscreteScheduler.

    Raises:
        UsageError: another scheduler or prediction type.
    """

    def __init__(self, config: dict) -> None:
        name = config.get("_class_name", "DDPMScheduler")
        if name == "FlowMatchEulerDiscreteScheduler":
            self.scheduler = FlowMatchEulerDiscreteScheduler.from_config(config)
            self.prediction_type = FLOW
            # Copies, because set_timesteps replaces the scheduler's own.
            self._sigmas = self.scheduler.sigmas.clone()
            self._timesteps = self.scheduler.timesteps.clone()
        elif name in DDPM_FAMILY:
            self.scheduler = DDPMScheduler.from_config(config)
            self.prediction_type = self.scheduler.config.prediction_type
        else:
            raise UsageError(
                f"the scheduler {name} is not supported: need one of the DDPM family or "
                "FlowMatchEulerDiscreteScheduler"
            )
        if self.prediction_type not in PREDICTION_TYPES:
            raise UsageError(
                f"prediction_type must be one of {', '.join(PREDICTION_TYPES)}, "
                f"got {self.prediction_type!r}"
            )

    @classmethod
    def new(
        cls, prediction_type: str, num_train_timesteps: int = 1000, beta_schedule: str = "linear"
    ) -> "NoiseProcess":
        """A process for a new model."""
        if prediction_type == FLOW:
            name = "FlowMatchEulerDiscreteScheduler"
            return cls({"_class_name": name, "num_train_timesteps": num_train_timesteps})
        return cls({
            "_class_name": "DDPMScheduler",
            "num_train_timesteps": num_train_timesteps,
            "beta_schedule": beta_schedule,
            "prediction_type": prediction_type,
        })  # fmt: skip

    def draw(self, shape: torch.Size | tuple, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Timestep numbers (shape[0],), int64, and Gaussian noise of this shape, on the
        generator's device."""
        count, device = shape[0], generator.device
        steps = self.scheduler.config.num_train_timesteps
        if self.prediction_type == FLOW:
            # Esser et al., arXiv 2403.03206, section 3.1; diffusers' sigmas fall with the number.
            position = compute_density_for_timestep_sampling(
                "logit_normal", count, 0.0, 1.0, device=device, generator=generator
            )
            number = (position * steps).long().clamp(max=steps - 1)
        else:
            number = torch.randint(steps, (count,), generator=generator, device=device)
        return number, torch.randn(shape, generator=generator, device=device)

    def noise_images(self, images: Tensor, number: Tensor, noise: Tensor) -> NoisyBatch:
        """
        Args:
            images, noise: (batch, channels, height, width), float32.
            number: (batch,), int64, in 0 ... num_train_timesteps - 1. For diffusion the timestep;
                for flow matching it counts from pure noise down.
        """
        if self.prediction_type == FLOW:
            self._sigmas = self._sigmas.to(images.device)  # a copy the first time only
            self._timesteps = self._timesteps.to(images.device)
            sigma = self._sigmas[number].view(-1, 1, 1, 1)
            noisy = (1 - sigma) * images + sigma * noise
            return NoisyBatch(noisy, self._timesteps[number], noise - images)
        noisy = self.scheduler.add_noise(images, noise, number)
        if self.prediction_type == "epsilon":
            target = noise
        elif self.prediction_type == "sample":
            target = images
        else:
            target = self.scheduler.get_velocity(images, noise, number)
        return NoisyBatch(noisy, number, target)

    def sampler(self) -> DDIMScheduler | FlowMatchEulerDiscreteScheduler:
        """A deterministic scheduler for sampling in few steps."""
        if self.prediction_type == FLOW:
            return FlowMatchEulerDiscreteScheduler.from_config(self.scheduler.config)
        # "trailing" starts at the last timestep, pure noise: Lin et al., arXiv 2305.08891.
        return DDIMScheduler.from_config(self.scheduler.config, timestep_spacing="trailing")
