"""A learner: one model with everything that trains it."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import torch
from accelerate import Accelerator
from diffusers.optimization import get_scheduler
from diffusers.training_utils import EMAModel
from torch import Tensor, nn

from liftplace.train.config import RunConfig
from liftplace.train.models import predict, save_pipeline
from liftplace.train.objective import Objective
from liftplace.train.process import NoiseProcess, NoisyBatch

# In the order in which a non-finite one is blamed: parts before what is made of them.
WATCHED = ("task", "coarse", "fine", "weight", "kd", "loss", "gradient_norm")
NEVER = torch.iinfo(torch.int64).max


class NonFiniteError(RuntimeError):
    """A loss, a gradient or a weight is NaN or infinite."""


class Learner:
    """One model with its objective, AdamW, learning rate schedule, average and clipping.

    Several learners may train side by side on the same batches; each behaves as if alone.

    Args:
        model: trained in place. It is on the run's device once `prepare` was called.
        objective: what it minimises.
        config: optimiser settings; the rest of it is not read here.
        name: of the learner in metrics and checkpoints.
    """

    def __init__(
        self, model: nn.Module, objective: Objective, config: RunConfig, name: str = "student"
    ) -> None:
        self.name = name
        self.model = model
        self.objective = objective
        self.max_grad_norm = config.max_grad_norm or float("inf")
        self.parameters = [weight for weight in model.parameters() if weight.requires_grad]
        self.optimizer = torch.optim.AdamW(
            self.parameters,
            lr=config.learning_rate,
            betas=(config.adam_beta1, config.adam_beta2),
            weight_decay=config.adam_weight_decay,
            eps=config.adam_epsilon,
        )
        self.schedule = get_scheduler(
            config.lr_scheduler,
            self.optimizer,
            num_warmup_steps=config.lr_warmup_steps,
            num_training_steps=config.max_train_steps,
        )
        self.ema = _average(self.parameters, config) if config.use_ema else None

    def prepare(self, accelerator: Accelerator) -> None:
        """Move to the accelerator's device and let it wrap what it distributes."""
        self._accelerator = accelerator
        self._trained, self.optimizer, self.schedule = accelerator.prepare(
            self.model, self.optimizer, self.schedule
        )
        if self.ema is not None:
            self.ema.to(accelerator.device)
        self._ranks = torch.distributed.group.WORLD if accelerator.num_processes > 1 else None
        self._terms: dict[str, Tensor] = {}
        self._first_bad = torch.full((len(WATCHED),), NEVER, device=accelerator.device)

    def accumulate(
        self,
        batch: NoisyBatch,
        teacher: Tensor | None,
        *,
        share: float = 1.0,
        last: bool = True,
        progress: float = 0.0,
    ) -> None:
        """Add the gradient of one batch.

        Args:
            batch: the student's input and target.
            teacher: the teacher's output on the same input, without grad.
            share: of this batch in the optimiser step.
            last: whether the optimiser steps next; only then do processes exchange gradients.
            progress: how much of the run is over, in [0, 1].
        """
        self._trained.train()
        with nullcontext() if last else self._accelerator.no_sync(self._trained):
            output = predict(self._trained, batch.noisy, batch.timesteps)
            terms = self.objective(
                output, batch.target, teacher, sample_weight=batch.weight, progress=progress,
                process_group=self._ranks,
            )  # fmt: skip
            self._accelerator.backward(terms["loss"] * share)
        for name, value in terms.items():
            part = value.detach().float() * share
            self._terms[name] = self._terms[name] + part if name in self._terms else part

    def update(self, step: int) -> dict[str, Tensor]:
        """Optimiser step number `step` with the gradient accumulated.

        Returns:
            The step's metrics by name, 0-d tensors on the device: nothing here waits for it.
        """
        self._accelerator.unscale_gradients(self.optimizer)
        gradient_norm = nn.utils.clip_grad_norm_(self.parameters, self.max_grad_norm)
        metrics = {**self._terms, "gradient_norm": gradient_norm.detach()}
        self._watch(metrics, step)
        self.learning_rate = self.schedule.get_last_lr()[0]  # of this step, for the log
        self.optimizer.step()
        self.schedule.step()
        self.optimizer.zero_grad()
        if self.ema is not None:
            self.ema.step(self.parameters)
        self._terms = {}
        return metrics

    def _watch(self, metrics: dict[str, Tensor], step: int) -> None:
        """Note on the device which metrics are not finite for the first time."""
        fine = torch.zeros((), device=self._first_bad.device)
        watched = torch.stack([metrics.get(name, fine) for name in WATCHED])
        bad = ~watched.isfinite()
        if self._accelerator.scaler is not None:
            bad[-1] = False  # fp16 gradients may overflow: the scaler skips such a step
        self._first_bad = torch.where(bad & (self._first_bad == NEVER), step, self._first_bad)

    def check_finite(self) -> None:
        """Raise NonFiniteError if anything was not finite since the last look. Waits for the
        device."""
        first_bad = self._accelerator.gather(self._first_bad[None]).amin(dim=0).tolist()
        step = min(first_bad)
        if step != NEVER:
            term = WATCHED[first_bad.index(step)]
            raise NonFiniteError(f"step {step}: {term} of {self.name} is not finite")

    def check_weights_finite(self, step: int) -> None:
        """Raise NonFiniteError if a weight is not finite. Waits for the device."""
        weights = [*self.model.parameters(), *(self.ema.shadow_params if self.ema else [])]
        if not torch.stack([weight.detach().isfinite().all() for weight in weights]).all():
            raise NonFiniteError(f"step {step}: a weight of {self.name} is not finite")

    @contextmanager
    def final_weights(self) -> Iterator[nn.Module]:
        """The model with the averaged weights where there is an average, as it will be saved."""
        if self.ema is None:
            yield self.model
            return
        self.ema.store(self.parameters)
        self.ema.copy_to(self.parameters)
        try:
            yield self.model
        finally:
            self.ema.restore(self.parameters)

    def save(self, folder: str | Path, process: NoiseProcess) -> None:
        """Write the final model as a folder that `DDPMPipeline.from_pretrained` loads.

        Every process of the run calls this; one writes.
        """
        if self._accelerator.is_main_process:
            with self.final_weights() as model:
                save_pipeline(model, process, folder)
        self._accelerator.wait_for_everyone()


def _average(parameters: list[nn.Parameter], config: RunConfig) -> EMAModel:
    return EMAModel(
        parameters,
        decay=config.ema_max_decay,
        use_ema_warmup=True,
        inv_gamma=config.ema_inv_gamma,
        power=config.ema_power,
        foreach=True,
    )
