"""A learner: one model with everything that trains it."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from liftplace.common.errors import NonFiniteError, UsageError
from liftplace.models.noise import NoiseProcess, NoisyBatch
from liftplace.models.saving import save_pipeline
from liftplace.train.capture import check_capture
from liftplace.train.features import NOTHING, Answer, FeatureMatch, Trainee
from liftplace.train.objective import Objective
from liftplace.train.optimizer import fuse, new_average, new_optimizer, new_schedule
from liftplace.train.recorded import RecordedGradient
from liftplace.train.run_config import RunConfig
from liftplace.train.shares import gradient_shares
from liftplace.train.space import SpaceWeight
from liftplace.train.variance import VariationalTerm
from liftplace.train.watch import Watch

MODEL = "model."  # the student's weights among the trainee's


class Learner:
    """One model with its objective, adapters, AdamW, learning rate schedule, average and clipping.

    Several learners may train side by side on the same batches; each behaves as if alone.

    Args:
        model: trained in place. It is on the run's device once `prepare` was called.
        objective: what it minimises.
        config: optimiser settings; the rest of it is not read here.
        name: of the learner in metrics and checkpoints.
        match: blocks whose hidden states are compared. The adapters are trained and restored with
            the model; the average and the final model are without them.
        variational: of the process, for a model that learns its variance too.
        space_weight: of the samples in the distillation loss; None for 1.
    """

    def __init__(
        self,
        model: nn.Module,
        objective: Objective,
        config: RunConfig,
        name: str = "student",
        *,
        match: FeatureMatch = NOTHING,
        variational: VariationalTerm | None = None,
        space_weight: SpaceWeight | None = None,
    ) -> None:
        self.name = name
        self.model = model
        self.trainee = Trainee(model, match)
        if config.gradient_checkpointing:
            model.enable_gradient_checkpointing()
        if config.compile:
            self.trainee.compile()
        self.objective = objective
        self.variational = variational
        self.space_weight = space_weight
        self.max_grad_norm = config.max_grad_norm or float("inf")
        self.averaged = [weight for weight in model.parameters() if weight.requires_grad]
        self.parameters = [*self.averaged, *match.adapters.parameters()]
        self.optimizer = new_optimizer(self.parameters, config)
        self.schedule = new_schedule(self.optimizer, config)
        self.ema = new_average(self.averaged, config) if config.use_ema else None
        self._cuda_graphs = config.cuda_graphs

    def prepare(self, accelerator: Accelerator) -> None:
        """Move to the accelerator's device and let it wrap what it distributes.

        Raises:
            UsageError: settings that do not go with the device or with several processes.
        """
        self._accelerator = accelerator
        if self._cuda_graphs:
            check_capture(accelerator)
        if not self.is_sharded:
            fuse(self.optimizer, accelerator)
        self._trained, self.optimizer, self.schedule = accelerator.prepare(
            self.trainee, self.optimizer, self.schedule
        )
        self._take_up_weights()
        self._ranks = torch.distributed.group.WORLD if accelerator.num_processes > 1 else None
        self._recorded = None
        if self._cuda_graphs:
            self._recorded = RecordedGradient(
                self._add_gradient, self.parameters, self.objective.is_scheduled
            )
        self._names: list[str] = []
        self._terms: Tensor | None = None  # (names,), float32, added up over the step's batches
        self._shares: dict[str, Tensor] = {}
        self._watch = Watch(accelerator, self.name)

    def _take_up_weights(self) -> None:
        """The weights as they are once distributed: FSDP puts its shards in their place.

        Raises:
            UsageError: DeepSpeed's ZeRO stage 3 with an average, whose weights are not at hand.
        """
        plugin = self._accelerator.state.deepspeed_plugin
        if self.ema is not None and plugin is not None and plugin.zero_stage == 3:
            raise UsageError("--use_ema does not go with DeepSpeed's ZeRO stage 3: use stage 2")
        self.averaged = [weight for weight in self.model.parameters() if weight.requires_grad]
        self.parameters = [*self.averaged, *self.trainee.adapters.parameters()]
        if self.ema is not None:
            self.ema.shadow_params = [weight.detach().clone() for weight in self.averaged]

    @property
    def is_sharded(self) -> bool:
        """Whether no process has the whole model."""
        return self._accelerator.distributed_type in (
            DistributedType.FSDP, DistributedType.DEEPSPEED
        )  # fmt: skip

    @property
    def is_main_process(self) -> bool:
        return self._accelerator.is_main_process

    @property
    def teacher_blocks(self) -> list[str]:
        """Whose hidden states `accumulate` needs from the teacher."""
        return [pair.teacher for pair in self.trainee.pairs]

    def accumulate(
        self,
        batch: NoisyBatch,
        teacher: Answer | None,
        *,
        share: float = 1.0,
        last: bool = True,
        progress: float = 0.0,
    ) -> None:
        """Add the gradient of one batch.

        Args:
            batch: the student's input and target.
            teacher: the teacher's answer to the same input, without grad.
            share: of this batch in the optimiser step.
            last: whether the optimiser steps next; only then do processes exchange gradients.
            progress: how much of the run is over, in [0, 1].
        """
        self._trained.train()
        self._accelerator.sync_gradients = last  # DeepSpeed steps in the backward pass
        if self._recorded is None:
            with nullcontext() if last else self._accelerator.no_sync(self._trained):
                values = self._add_gradient(batch, teacher, share, progress)
        else:
            values = self._recorded(batch, teacher, share, last, progress)
        part = values * share
        self._terms = part if self._terms is None else self._terms + part

    def _add_gradient(
        self, batch: NoisyBatch, teacher: Answer | None, share: float, progress: float | Tensor
    ) -> Tensor:
        """Forward, loss and backward of one batch; the terms in the order of `_names`."""
        answer = self._trained(batch.noisy, batch.timesteps, batch.conditions)
        terms = self._terms_of(batch, answer, teacher, progress)
        self._accelerator.backward(terms["loss"] * share)
        self._names = list(terms)
        return torch.stack([value.detach().float() for value in terms.values()])

    def share_out(
        self, batch: NoisyBatch, teacher: Answer | None, *, progress: float = 0.0, seed: int = 0
    ) -> None:
        """Find what each term of the loss contributes to the gradient of one batch, for the metrics
        of this step. To be called before `accumulate`; what is learnt is the same with and without.

        Args:
            batch, teacher, progress: as `accumulate` takes them.
            seed: of the dropout, the same for every term.
        """

        def gradient_of(only: str | None) -> list[Tensor | None]:
            torch.manual_seed(seed)
            answer = self._trained(batch.noisy, batch.timesteps, batch.conditions)
            loss = self._terms_of(batch, answer, teacher, progress, only)["loss"]
            self._accelerator.backward(loss)
            found = [None if w.grad is None else local(w.grad) for w in self.parameters]
            self.optimizer.zero_grad(set_to_none=True)
            return found

        self._trained.train()
        scaler = self._accelerator.scaler
        self._shares = gradient_shares(
            self.objective.summands,
            gradient_of,
            add_up=self._accelerator.reduce if self.is_sharded else None,
            scale=1.0 if scaler is None else scaler.get_scale(),
        )

    def _terms_of(
        self,
        batch: NoisyBatch,
        answer: Answer,
        teacher: Answer | None,
        progress: float | Tensor,
        only: str | None = None,
    ) -> dict[str, Tensor]:
        variance = None
        if self.variational is not None:
            variance = self.variational(batch, answer.output.detach(), answer.variance)
        return self.objective(
            answer.output,
            batch.target,
            None if teacher is None else teacher.output,
            variance=variance,
            features=[
                (hidden, teacher.features[pair.teacher]) for pair, hidden in answer.features.items()
            ],
            sample_weight=batch.weight,
            kd_sample_weight=None if self.space_weight is None else self.space_weight(batch),
            timesteps=batch.timesteps,
            progress=progress,
            process_group=self._ranks,
            only=only,
        )

    def update(self, step: int) -> dict[str, Tensor]:
        """Optimiser step number `step` with the gradient accumulated.

        Returns:
            The step's metrics by name, 0-d tensors on the device: nothing here waits for it.
        """
        terms = dict(zip(self._names, self._terms.unbind(), strict=True))
        metrics = {**terms, **self._shares, "gradient_norm": self._clip()}
        self._watch.note(metrics, step)
        self.learning_rate = self.schedule.get_last_lr()[0]  # of this step, for the log
        self.optimizer.step()
        self.schedule.step()
        self.optimizer.zero_grad()
        if self.ema is not None:
            self.ema.step(self.averaged)
        self._terms, self._shares = None, {}
        return metrics

    def _clip(self) -> Tensor:
        """Clip the gradient; its norm before."""
        norm = self._accelerator.clip_grad_norm_(self.parameters, self.max_grad_norm)
        if not isinstance(norm, Tensor):  # DeepSpeed's, which has clipped by itself
            return torch.tensor(float(norm), device=self._accelerator.device)
        return whole(norm.detach())

    def check_finite(self) -> None:
        """Raise NonFiniteError if anything was not finite since the last look. Waits for the
        device."""
        self._watch.check()

    def check_weights_finite(self, step: int) -> None:
        """Raise NonFiniteError if a weight is not finite. Waits for the device."""
        weights = [*self.trainee.parameters(), *(self.ema.shadow_params if self.ema else [])]
        fine = torch.stack([local(weight.detach()).isfinite().all() for weight in weights]).all()
        if not self._accelerator.gather(fine[None]).all():
            raise NonFiniteError(f"step {step}: a weight of {self.name} is not finite")

    @contextmanager
    def final_weights(self) -> Iterator[nn.Module | None]:
        """The model with the averaged weights where there is an average, as it will be saved.

        Every process of the run enters. Where the model is sharded, the main process gets a whole
        copy and the others None.
        """
        if self.is_sharded:
            yield self._whole_copy()
        elif self.ema is None:
            yield self.model
        else:
            self.ema.store(self.averaged)
            self.ema.copy_to(self.averaged)
            try:
                yield self.model
            finally:
                self.ema.restore(self.averaged)

    def _whole_copy(self) -> nn.Module | None:
        state = self._accelerator.get_state_dict(self._trained)
        averages = [whole(average) for average in self.ema.shadow_params] if self.ema else []
        if not self.is_main_process:
            return None
        of_model = (name for name in state if name.startswith(MODEL))
        weights = {name.removeprefix(MODEL): state[name] for name in of_model}
        if averages:
            names = [name for name, w in self.model.named_parameters() if w.requires_grad]
            weights |= dict(zip(names, averages, strict=True))
        copy = type(self.model).from_config(self.model.config)
        copy.load_state_dict(weights)
        return copy.to(self._accelerator.device)

    def save(
        self, folder: str | Path, process: NoiseProcess, like: str | Path | None = None
    ) -> None:
        """Write the final model as a folder that a diffusers pipeline loads, as `save_pipeline`.

        Every process of the run calls this; one writes.
        """
        with self.final_weights() as model:
            if self.is_main_process:
                save_pipeline(model, process, folder, like)
        self._accelerator.wait_for_everyone()


def local(weight: Tensor) -> Tensor:
    """This process's part of a sharded tensor."""
    return weight.to_local() if isinstance(weight, DTensor) else weight


def whole(weight: Tensor) -> Tensor:
    """A sharded tensor put together, for which every process calls this."""
    return weight.full_tensor() if isinstance(weight, DTensor) else weight
