"""A model that gives hidden states beside its output; the teacher is one that is frozen."""

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor, nn

from liftplace.families import family_of_model
from liftplace.families.family import Conditions, split_variance
from liftplace.models.loading import set_precision
from liftplace.models.noise import NoisyBatch
from liftplace.train.cuda_graphs import CapturedFunction


class ModelOutput(NamedTuple):
    """What a model gives for a batch."""

    output: Tensor  # (batch, in_channels, height, width)
    variance: Tensor | None = None  # as output, where the model also predicts a variance
    features: Mapping = MappingProxyType({})  # hidden states, by block or by pair of blocks


class HookedModel(nn.Module):
    """A model that gives the hidden states of some of its blocks beside its output.

    Args:
        model: of a family.
        blocks: names out of `family.blocks(model)`.
    """

    def __init__(self, model: nn.Module, blocks: Iterable[str] = ()) -> None:
        super().__init__()
        self.model = model
        self.family = family_of_model(model)
        self.family.prepare_training(model)
        self._seen: dict[str, Tensor] | None = None
        modules = self.family.blocks(model)
        self._hooks = [
            modules[name].register_forward_hook(self._hook(name)) for name in dict.fromkeys(blocks)
        ]

    def unhook(self) -> None:
        """Leave the model as it was."""
        for hook in self._hooks:
            hook.remove()

    def _hook(self, name: str):
        def keep(module, arguments, output) -> None:
            # Not when something else calls the model, nor when gradient checkpointing calls a
            # block once more in the backward pass.
            if self._seen is not None:
                self._seen[name] = self.family.block_output(output)

        return keep

    def forward(self, noisy: Tensor, timesteps: Tensor, conditions: Conditions) -> ModelOutput:
        self._seen = seen = {}
        try:
            output = self.family.predict(self.model, noisy, timesteps, conditions)
        finally:
            self._seen = None
        output, variance = split_variance(output, noisy.shape[1])
        return ModelOutput(output, variance, seen)


class Teacher:
    """A frozen model, whose output is a constant of the training.

    Args:
        model: of a family; it is frozen and moved.
        device: where the batches are.
        mixed_precision: "no" leaves the weights as they are; "fp16" and "bf16" cast them.
        blocks: whose hidden states it gives, by name.
        compile: let torch.compile make it faster.
        cuda_graphs: launch it as one CUDA graph. Each output then overwrites the last.
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
        self.hooked = HookedModel(set_precision(model, device, mixed_precision), blocks)
        if compile:
            self.hooked.compile()
        self._forward = CapturedFunction(self.hooked) if cuda_graphs else self.hooked
        self.dtype = next(model.parameters()).dtype

    @torch.no_grad()
    def __call__(self, batch: NoisyBatch) -> ModelOutput:
        """Output, variance and hidden states, in the teacher's type and without grad."""
        conditions = {name: self._cast(value) for name, value in batch.conditions.items()}
        return self._forward(batch.noisy.to(self.dtype), batch.timesteps, conditions)

    def _cast(self, value: Tensor) -> Tensor:
        return value.to(self.dtype) if value.is_floating_point() else value
