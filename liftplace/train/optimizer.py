"""What steps the weights: AdamW, its learning rate schedule, and the EMA of the weights."""

from collections.abc import Iterable

import torch
from accelerate import Accelerator
from diffusers.optimization import get_scheduler
from diffusers.training_utils import EMAModel
from torch import nn

from liftplace.common.errors import UsageError
from liftplace.train.run_config import EmaConfig, OptimizerConfig


def new_optimizer(
    parameters: Iterable[nn.Parameter], config: OptimizerConfig
) -> torch.optim.Optimizer:
    """AdamW, or that of bitsandbytes with its state in 8 bits.

    Raises:
        UsageError: bitsandbytes is asked for and not installed.
    """
    return _adam(config)(
        parameters,
        lr=config.learning_rate,
        betas=(config.adam_beta1, config.adam_beta2),
        weight_decay=config.adam_weight_decay,
        eps=config.adam_epsilon,
    )


def fuse(optimizer: torch.optim.Optimizer, accelerator: Accelerator) -> None:
    """Let AdamW step a few dozen weights in one kernel.

    Not with fp16: its gradient scaler does the step in a way of its own with a fused optimiser,
    and waits for the GPU in any case.
    """
    if accelerator.device.type not in ("cpu", "cuda") or accelerator.mixed_precision == "fp16":
        return
    if type(optimizer) is torch.optim.AdamW:
        for group in optimizer.param_groups:
            group["fused"] = True


def _adam(config: OptimizerConfig) -> type[torch.optim.Optimizer]:
    if not config.use_8bit_adam:
        return torch.optim.AdamW
    try:
        from bitsandbytes.optim import AdamW8bit
    except ImportError as error:
        raise UsageError("--use_8bit_adam needs a package: pip install bitsandbytes") from error
    return AdamW8bit


def new_schedule(optimizer: torch.optim.Optimizer, config: OptimizerConfig, max_train_steps: int):
    """The learning rate by step, no lower than `lr_min` after the warm-up."""
    warmup = config.warmup_steps(max_train_steps)
    schedule = get_scheduler(
        config.lr_scheduler,
        optimizer,
        num_warmup_steps=warmup,
        num_training_steps=max_train_steps,
    )
    (factor,), floor = schedule.lr_lambdas, config.lr_min / config.learning_rate
    if floor > 0:
        schedule.lr_lambdas = [
            lambda step: factor(step) * (1 - floor) + floor if step >= warmup else factor(step)
        ]
    return schedule


def new_ema(parameters: list[nn.Parameter], config: EmaConfig) -> EMAModel:
    """The exponential moving average of these weights."""
    return EMAModel(
        parameters,
        decay=config.ema_max_decay,
        min_decay=config.ema_min_decay,
        use_ema_warmup=True,
        inv_gamma=config.ema_inv_gamma,
        power=config.ema_power,
        foreach=True,
    )
