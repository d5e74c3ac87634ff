"""The teacher: what it answers is a constant of the training."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from liftplace.models.loading import set_precision
from liftplace.models.noise import NoisyBatch
from liftplace.train.capture import Captured
from liftplace.train.features import Answer, Observed


class Teacher:
    """A frozen model that answers batches.

    Args:
        model: of a family; it is frozen and moved.
        device: where the batches are.
        mixed_precision: "no" leaves the weights as they are; "fp16" and "bf16" cast them.
        blocks: whose hidden states the answers hold, by name.
        compile: let torch.compile make it faster.
        cuda_graphs: launch its answer as one CUDA graph. Each answer then overwrites the last.
    """

    def __init__(
        self,
        model: nn.Module,
        device: torch.device,
        mixed_precision: str = "no",
        blocks: Iterable[str] = (),
        compile: bool = False,
        cuda_graphs: bool = False,
    ) -> None:
        self.observed = Observed(set_precision(model, device, mixed_precision), blocks)
        if compile:
            self.observed.compile()
        self._answer = Captured(self.observed) if cuda_graphs else self.observed
        self.dtype = next(model.parameters()).dtype

    @torch.no_grad()
    def __call__(self, batch: NoisyBatch) -> Answer:
        """Output, variance and hidden states, in the teacher's type and without grad."""
        conditions = {name: self._cast(value) for name, value in batch.conditions.items()}
        return self._answer(batch.noisy.to(self.dtype), batch.timesteps, conditions)

    def _cast(self, value: Tensor) -> Tensor:
        return value.to(self.dtype) if value.is_floating_point() else value
