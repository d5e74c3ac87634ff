"""The noise process: from clean images to a model's input and target."""

from dataclasses import dataclass, field
from inspect import signature

import diffusers
import torch
from diffusers import DDIMScheduler, DDPMScheduler, FlowMatchEulerDiscreteScheduler
from diffusers.schedulers import KarrasDiffusionSchedulers
from diffusers.training_utils import (
    compute_density_for_timestep_sampling,
    compute_loss_weighting_for_sd3,
    compute_snr,
)
from torch import Tensor

from liftplace.common.errors import UsageError
from liftplace.families.family import Conditions
from liftplace.models.config import TimestepSampling

FLOW = "flow"
PREDICTION_TYPES = ("epsilon", "sample", "v_prediction", FLOW)
# Of EDM's the model is told other timesteps, and its input is scaled.
DDPM_FAMILY = {scheduler.name for scheduler in KarrasDiffusionSchedulers}
DDPM_FAMILY -= {"EDMEulerScheduler"}
DDPM_FAMILY |= {"DDIMParallelScheduler", "DDPMParallelScheduler", "SASolverScheduler"}
# Settings of a scheduler under which the model is told or asked something else.
REFUSED = {
    "timestep_type": ("continuous",),
    "use_flow_sigmas": (True,),
    "invert_sigmas": (True,),
    "stochastic_sampling": (True,),
}
STANDARD = TimestepSampling()


@dataclass(frozen=True)
class NoisyBatch:
    """A model's input and target, on one device."""

    noisy: Tensor  # (batch, channels, height, width)
    timesteps: Tensor  # (batch,)
    target: Tensor  # as noisy
    weight: Tensor | None = None  # (batch,), of each sample in the task loss; None: all 1
    conditions: Conditions = field(default_factory=dict)  # by name, the batch first


class NoiseProcess:
    """Draws timesteps and noise, and makes noisy images and targets of them.

    Diffusion: x_t = sqrt(abar_t) x + sqrt(1 - abar_t) n, t uniform, target n, x or
    sqrt(abar_t) n - sqrt(1 - abar_t) x by the scheduler's `prediction_type`. Flow matching:
    x_t = (1 - sigma) x + sigma n, logit-normal in t, target n - x.

    Args:
        config: a diffusers scheduler's config, as in scheduler_config.json: one of the DDPM family
            (DDPM, DDIM, PNDM, ...) or FlowMatchEulerDiscreteScheduler.
        timesteps: which are drawn, and how they weigh.

    Raises:
        UsageError: another scheduler or prediction type, or a weighting for the other kind of
            process.
    """

    def __init__(self, config: dict, timesteps: TimestepSampling = STANDARD) -> None:
        name = config.get("_class_name", "DDPMScheduler")
        if name == "FlowMatchEulerDiscreteScheduler":
            self.scheduler = _own_scheduler(name, config)
            self.prediction_type = FLOW
            # Copies, because set_timesteps replaces the scheduler's own.
            self._sigmas = self.scheduler.sigmas.clone()
            self._timesteps = self.scheduler.timesteps.clone()
        elif name in DDPM_FAMILY:
            self.scheduler = _as_ddpm(_own_scheduler(name, config))
            self.prediction_type = self.scheduler.config.prediction_type
        else:
            raise UsageError(
                f"the scheduler {name} is not supported: its model is told or asked for something "
                "else. Supported are FlowMatchEulerDiscreteScheduler and "
                f"{', '.join(sorted(DDPM_FAMILY))}"
            )
        if self.prediction_type not in PREDICTION_TYPES:
            raise UsageError(
                f"prediction_type must be one of {', '.join(PREDICTION_TYPES)}, "
                f"got {self.prediction_type!r}"
            )
        self.options = timesteps
        if self.prediction_type == FLOW and timesteps.snr_gamma is not None:
            raise UsageError(
                f"snr_gamma={timesteps.snr_gamma} weighs a diffusion process, and this one is flow "
                "matching: use weighting_scheme"
            )
        if self.prediction_type != FLOW and timesteps.weighting_scheme is not None:
            raise UsageError(
                f"weighting_scheme={timesteps.weighting_scheme} is for flow matching, and this is "
                f"a diffusion process that predicts {self.prediction_type}: use snr_gamma"
            )

    @classmethod
    def new(
        cls,
        prediction_type: str,
        num_train_timesteps: int = 1000,
        beta_schedule: str = "linear",
        timesteps: TimestepSampling = STANDARD,
    ) -> "NoiseProcess":
        """A process for a new model."""
        if prediction_type == FLOW:
            name = "FlowMatchEulerDiscreteScheduler"
            return cls({"_class_name": name, "num_train_timesteps": num_train_timesteps}, timesteps)
        config = {
            "_class_name": "DDPMScheduler",
            "num_train_timesteps": num_train_timesteps,
            "beta_schedule": beta_schedule,
            "prediction_type": prediction_type,
            # Sampling starts at the last timestep, pure noise: Lin et al., arXiv 2305.08891.
            "timestep_spacing": "trailing",
        }
        return cls(config, timesteps)

    def draw(self, shape: torch.Size | tuple, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Timestep numbers (shape[0],), int64, and Gaussian noise of this shape, on the
        generator's device."""
        count, device, options = shape[0], generator.device, self.options
        steps = self.scheduler.config.num_train_timesteps
        drawn = (count + 1) // 2 if options.antithetic_timesteps else count
        if self.prediction_type == FLOW:
            scheme = options.weighting_scheme or "logit_normal"
            shape_of_density = options.logit_mean, options.logit_std, options.mode_scale
            position = compute_density_for_timestep_sampling(
                scheme, drawn, *shape_of_density, device=device, generator=generator
            )
            # diffusers' sigmas fall with the number
            number = (position * steps).long().clamp(max=steps - 1)
        else:
            number = torch.randint(steps, (drawn,), generator=generator, device=device)
        if options.antithetic_timesteps:
            number = torch.cat([number, steps - 1 - number])[:count]
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
            weight = None
            if self.options.weighting_scheme in ("sigma_sqrt", "cosmap"):
                scheme = self.options.weighting_scheme
                weight = compute_loss_weighting_for_sd3(scheme, self._sigmas[number])
            return NoisyBatch(noisy, self._timesteps[number], noise - images, weight)
        noisy = self.scheduler.add_noise(images, noise, number)
        if self.prediction_type == "epsilon":
            target = noise
        elif self.prediction_type == "sample":
            target = images
        else:
            target = self.scheduler.get_velocity(images, noise, number)
        return NoisyBatch(noisy, number, target, self._snr_weight(number))

    def _snr_weight(self, number: Tensor) -> Tensor | None:
        """min(snr, gamma), which weighs an error of x, in terms of what is predicted."""
        gamma = self.options.snr_gamma
        if gamma is None:
            return None
        snr = compute_snr(self.scheduler, number)
        if self.prediction_type == "epsilon":
            return (gamma / snr).clamp(max=1)  # 1 also where the last timestep is pure noise
        weight = snr.clamp(max=gamma)
        return weight / (snr + 1) if self.prediction_type == "v_prediction" else weight

    def sampler(self, **changes) -> DDIMScheduler | FlowMatchEulerDiscreteScheduler:
        """A deterministic scheduler for sampling in few steps, with the model's own settings.

        Args:
            changes: settings in place of those, such as `timestep_spacing` or `clip_sample`.
        """
        config = self.scheduler.config
        if self.prediction_type == FLOW:
            return FlowMatchEulerDiscreteScheduler.from_config(config, **changes)
        if config.beta_schedule == "sigmoid":  # which DDIM does not know by name
            changes = {"trained_betas": self.scheduler.betas.tolist()} | changes
        return DDIMScheduler.from_config(config, **changes)


def _own_scheduler(name: str, config: dict):
    """The scheduler of this class, whose own defaults stand for what its file leaves out."""
    try:
        scheduler = getattr(diffusers, name).from_config(config)
    except (ImportError, NotImplementedError, TypeError, ValueError) as error:
        raise UsageError(f"the scheduler {name}: {' '.join(str(error).split())}") from error
    for setting, values in REFUSED.items():
        if scheduler.config.get(setting) in values:
            raise UsageError(
                f"the scheduler {name} with {setting}={scheduler.config[setting]} is not "
                "supported: its model is told other timesteps, or asked for something else"
            )
    return scheduler


def _as_ddpm(own) -> DDPMScheduler:
    """The same noise, clipping and spacing as those of a scheduler of the DDPM family."""
    # What a class has no setting for it does not do. Only settings are taken, because by diffusers'
    # notes beside them a default of one class would become that of the other.
    known = {name for kind in (DDPMScheduler, DDIMScheduler) for name in signature(kind).parameters}
    nothing = {"clip_sample": False, "thresholding": False, "timestep_spacing": "linspace"}
    settings = nothing | {name: own.config[name] for name in known & own.config.keys()}
    scheduler = DDPMScheduler.from_config(settings)
    # Some classes keep the last alpha-bar from 0 where the terminal SNR is zero.
    if not torch.allclose(own.alphas_cumprod, scheduler.alphas_cumprod, rtol=1e-4, atol=1e-6):
        raise UsageError(
            f"the scheduler {type(own).__name__} makes another noise of its settings than "
            "DDPMScheduler: it is not supported"
        )
    return scheduler
