"""What trains one model: its objective, optimiser, learning rate schedule and EMA."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from liftplace.common.errors import NonFiniteError, UsageError
from liftplace.models.noise import NoiseProcess, NoisyBatch
from liftplace.models.saving import save_pipeline
from liftplace.train.cuda_graphs import RecordedGradient, check_cuda_graphs
from liftplace.train.diagnostics import NonFiniteMonitor, gradients_by_term
from liftplace.train.features import NO_FEATURES, FeatureMatch, StudentWithAdapters
from liftplace.train.hooked_model import ModelOutput
from liftplace.train.objective import Objective, SpaceWeight
from liftplace.train.optimizer import fuse, new_ema, new_optimizer, new_schedule
from liftplace.train.run_config import RunConfig
from liftplace.train.vlb import VLBLoss

MODEL = "model."  # prefix of the model's weights among those of StudentWithAdapters


@dataclass(frozen=True)
class TrainerSpec:
    """A model and what it is to minimise: what a `ModelTrainer` is made of.

    Attributes:
        model: trained in place.
        objective: what it minimises.
        config: settings of optimiser, schedule, EMA and device; the others are not read.
        name: of the model in metrics and checkpoints.
        match: blocks whose hidden states are compared. The adapters are trained and restored with
            the model; the EMA and the final model are without them.
        vlb: loss of the variance, for a model that learns it.
        space_weight: of the samples in the distillation loss; None for 1.
    """

    model: nn.Module
    objective: Objective
    config: RunConfig
    name: str = "student"
    match: FeatureMatch = NO_FEATURES
    vlb: VLBLoss | None = None
    space_weight: SpaceWeight | None = None


class ModelTrainer:
    """Trains one model by AdamW, with clipping and, if the settings say so, an EMA of the weights.

    Several may train side by side on the same batches; each behaves as if alone.

    Args:
        spec: what it trains. The model moves to the accelerator's device.
        accelerator: of the run. It wraps what it distributes.

    Raises:
        UsageError: settings that do not go with the device or with several processes.
    """

    def __init__(self, spec: TrainerSpec, accelerator: Accelerator) -> None:
        self.accelerator, self.name = accelerator, spec.name
        self.model, self.objective = spec.model, spec.objective
        self._vlb, self._space_weight = spec.vlb, spec.space_weight
        config = spec.config
        self._max_grad_norm = config.max_grad_norm or float("inf")
        self._check_devices(config)
        self.module = StudentWithAdapters(self.model, spec.match)
        if config.gradient_checkpointing:
            self.model.enable_gradient_checkpointing()
        if config.compile:
            self.module.compile()
        optimizer = new_optimizer(self._weights(self.module), config)
        schedule = new_schedule(optimizer, config, config.max_train_steps)
        if not self.is_sharded:
            fuse(optimizer, accelerator)
        self._wrapped, self.optimizer, self.schedule = accelerator.prepare(
            self.module, optimizer, schedule
        )
        # Only now, because FSDP puts its shards in the place of the weights.
        self.model_parameters = self._weights(self.model)
        self.parameters = self._weights(self.module)
        self.ema = new_ema(self.model_parameters, config) if config.use_ema else None
        self.learning_rate = self.schedule.get_last_lr()[0]
        self._process_group = (
            torch.distributed.group.WORLD if accelerator.num_processes > 1 else None
        )
        self._recorded_gradient = None
        if config.cuda_graphs:
            self._recorded_gradient = RecordedGradient(
                self._add_gradient, self.parameters, self.objective.is_scheduled
            )
        self._term_names: list[str] = []
        self._term_sums: Tensor | None = None  # (names,), float32, over the step's batches
        self._gradient_metrics: dict[str, Tensor] = {}
        self._monitor = NonFiniteMonitor(accelerator, self.name)

    def _check_devices(self, config: RunConfig) -> None:
        if config.cuda_graphs:
            check_cuda_graphs(self.accelerator)
        plugin = self.accelerator.state.deepspeed_plugin
        if config.use_ema and plugin is not None and plugin.zero_stage == 3:
            raise UsageError("--use_ema does not go with DeepSpeed's ZeRO stage 3: use stage 2")

    @staticmethod
    def _weights(module: nn.Module) -> list[nn.Parameter]:
        return [weight for weight in module.parameters() if weight.requires_grad]

    @property
    def is_sharded(self) -> bool:
        """Whether no process has the whole model."""
        sharded = (DistributedType.FSDP, DistributedType.DEEPSPEED)
        return self.accelerator.distributed_type in sharded

    @property
    def is_main_process(self) -> bool:
        return self.accelerator.is_main_process

    @property
    def teacher_blocks(self) -> list[str]:
        """The teacher's blocks whose hidden states `accumulate` needs."""
        return [pair.teacher for pair in self.module.pairs]

    def accumulate(
        self,
        batch: NoisyBatch,
        teacher: ModelOutput | None,
        *,
        share: float = 1.0,
        sync_gradients: bool = True,
        progress: float = 0.0,
    ) -> None:
        """Add the gradient of one batch.

        Args:
            batch: the model's input and target.
            teacher: the teacher's output for the same input, without grad.
            share: of this batch in the optimiser step.
            sync_gradients: whether the optimiser steps next; only then do processes exchange
                gradients.
            progress: how much of the run is over, in [0, 1].
        """
        self._wrapped.train()
        self.accelerator.sync_gradients = sync_gradients  # DeepSpeed steps in the backward pass
        if self._recorded_gradient is None:
            with nullcontext() if sync_gradients else self.accelerator.no_sync(self._wrapped):
                terms = self._add_gradient(batch, teacher, share, progress)
        else:
            terms = self._recorded_gradient(batch, teacher, share, sync_gradients, progress)
        part = terms * share
        self._term_sums = part if self._term_sums is None else self._term_sums + part

    def _add_gradient(
        self, batch: NoisyBatch, teacher: ModelOutput | None, share: float, progress: float | Tensor
    ) -> Tensor:
        """Forward, loss and backward of one batch; gives the terms in the order of their names."""
        terms = self._forward(batch, teacher, progress)
        self.accelerator.backward(terms["loss"] * share)
        self._term_names = list(terms)
        return torch.stack([value.detach().float() for value in terms.values()])

    def _forward(
        self,
        batch: NoisyBatch,
        teacher: ModelOutput | None,
        progress: float | Tensor,
        only: str | None = None,
    ) -> dict[str, Tensor]:
        """The terms of the objective for one batch."""
        output = self._wrapped(batch.noisy, batch.timesteps, batch.conditions)
        variance = None
        if self._vlb is not None:
            variance = self._vlb(batch, output.output.detach(), output.variance)
        pairs = output.features.items()
        return self.objective(
            output.output,
            batch.target,
            None if teacher is None else teacher.output,
            variance=variance,
            features=[(hidden, teacher.features[pair.teacher]) for pair, hidden in pairs],
            sample_weight=batch.weight,
            kd_sample_weight=None if self._space_weight is None else self._space_weight(batch),
            timesteps=batch.timesteps,
            progress=progress,
            process_group=self._process_group,
            only=only,
        )

    def measure_gradients(
        self,
        batch: NoisyBatch,
        teacher: ModelOutput | None,
        *,
        progress: float = 0.0,
        seed: int = 0,
    ) -> None:
        """Measure what each term of the loss adds to the gradient of one batch, for the metrics of
        this step. To be called before `accumulate`; what is learnt is the same with and without.

        Args:
            batch, teacher, progress: as `accumulate` takes them.
            seed: of the dropout, the same for every term.
        """

        def gradient_of(only: str | None) -> list[Tensor | None]:
            torch.manual_seed(seed)
            self.accelerator.backward(self._forward(batch, teacher, progress, only)["loss"])
            gradient = [None if w.grad is None else local(w.grad) for w in self.parameters]
            self.optimizer.zero_grad(set_to_none=True)
            return gradient

        self._wrapped.train()
        scaler = self.accelerator.scaler
        self._gradient_metrics = gradients_by_term(
            self.objective.summands,
            gradient_of,
            add_up=self.accelerator.reduce if self.is_sharded else None,
            scale=1.0 if scaler is None else scaler.get_scale(),
        )

    def update(self, step: int) -> dict[str, Tensor]:
        """Optimiser step number `step` with the gradient accumulated.

        Returns:
            The step's metrics by name, 0-d tensors on the device: nothing here waits for it.
        """
        terms = dict(zip(self._term_names, self._term_sums.unbind(), strict=True))
        metrics = {**terms, **self._gradient_metrics, "gradient_norm": self._clip()}
        self._monitor.note(metrics, step)
        self.learning_rate = self.schedule.get_last_lr()[0]  # of this step, for the log
        self.optimizer.step()
        self.schedule.step()
        self.optimizer.zero_grad()
        if self.ema is not None:
            self.ema.step(self.model_parameters)
        self._term_sums, self._gradient_metrics = None, {}
        return metrics

    def _clip(self) -> Tensor:
        """Clip the gradient; gives its norm before."""
        norm = self.accelerator.clip_grad_norm_(self.parameters, self._max_grad_norm)
        if not isinstance(norm, Tensor):  # DeepSpeed's, which has clipped by itself
            return torch.tensor(float(norm), device=self.accelerator.device)
        return whole(norm.detach())

    def check_finite(self) -> None:
        """Raise NonFiniteError if a metric was not finite since the last check. Waits for the
        device."""
        self._monitor.check()

    def check_weights_finite(self, step: int) -> None:
        """Raise NonFiniteError if a weight is not finite. Waits for the device."""
        weights = [*self.module.parameters(), *(self.ema.shadow_params if self.ema else [])]
        finite = torch.stack([local(weight.detach()).isfinite().all() for weight in weights]).all()
        if not self.accelerator.gather(finite[None]).all():
            raise NonFiniteError(f"step {step}: a weight of {self.name} is not finite")

    @contextmanager
    def final_weights(self) -> Iterator[nn.Module | None]:
        """The model as it will be saved: with the EMA of the weights where there is one.

        Every process of the run enters. Where the model is sharded, the main process gets a whole
        copy and the others None.
        """
        if self.is_sharded:
            yield self._whole_copy()
        elif self.ema is None:
            yield self.model
        else:
            self.ema.store(self.model_parameters)
            self.ema.copy_to(self.model_parameters)
            try:
                yield self.model
            finally:
                self.ema.restore(self.model_parameters)

    def _whole_copy(self) -> nn.Module | None:
        state = self.accelerator.get_state_dict(self._wrapped)
        ema = [whole(weight) for weight in self.ema.shadow_params] if self.ema else []
        if not self.is_main_process:
            return None
        of_model = (name for name in state if name.startswith(MODEL))
        weights = {name.removeprefix(MODEL): state[name] for name in of_model}
        if ema:
            names = [name for name, w in self.model.named_parameters() if w.requires_grad]
            weights |= dict(zip(names, ema, strict=True))
        copy = type(self.model).from_config(self.model.config)
        copy.load_state_dict(weights)
        return copy.to(self.accelerator.device)

    def save(
        self, folder: str | Path, process: NoiseProcess, base_pipeline: str | Path | None = None
    ) -> None:
        """Write the final model as a folder that a diffusers pipeline loads, as `save_pipeline`.

        Every process of the run calls this; one writes.
        """
        with self.final_weights() as model:
            if self.is_main_process:
                save_pipeline(model, process, folder, base_pipeline)
        self.accelerator.wait_for_everyone()


def local(weight: Tensor) -> Tensor:
    """This process's part of a sharded tensor."""
    return weight.to_local() if isinstance(weight, DTensor) else weight


def whole(weight: Tensor) -> Tensor:
    """A sharded tensor put together, for which every process calls this."""
    return weight.full_tensor() if isinstance(weight, DTensor) else weight
