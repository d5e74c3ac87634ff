"""A learner's gradient of a batch, by one CUDA graph."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from liftplace.models.noise import NoisyBatch
from liftplace.train.capture import Captured
from liftplace.train.features import Answer


class RecordedGradient:
    """Forward, loss and backward of a batch, launched whole.

    Args:
        add_gradient: called with a batch, the teacher's answer, a share and the progress, adds to
            the gradients of `parameters` and gives a tensor.
        parameters: the weights.
        is_scheduled: whether what it gives depends on the progress.
    """

    def __init__(
        self,
        add_gradient: Callable[..., Tensor],
        parameters: Sequence[nn.Parameter],
        is_scheduled: bool,
    ) -> None:
        self._add_gradient = add_gradient
        self._parameters = parameters
        self._is_scheduled = is_scheduled
        self._captured = Captured(self._fresh)

    def __call__(
        self, batch: NoisyBatch, teacher: Answer | None, share: float, last: bool, progress: float
    ) -> Tensor:
        """As `add_gradient`; `last`: whether the optimiser steps before the next call."""
        before = [weight.grad for weight in self._parameters]
        answered = None if teacher is None else (teacher.output, dict(teacher.features))
        progress = (
            torch.full((), progress, device=batch.noisy.device) if self._is_scheduled else 0.0
        )
        values, fresh = self._captured(vars(batch), answered, share, progress)
        for weight, old, new in zip(self._parameters, before, fresh, strict=True):
            if old is not None and new is not None:
                weight.grad = old.add_(new)
            elif new is not None:  # the graph's own memory, which its next replay overwrites
                weight.grad = new if last else new.clone()
            else:
                weight.grad = old
        return values

    def _fresh(
        self, batch: dict, teacher: tuple | None, share: float, progress: float | Tensor
    ) -> tuple[Tensor, list[Tensor | None]]:
        """The values, and the gradient of this batch alone: what the graph is recorded of."""
        for weight in self._parameters:
            weight.grad = None
        answer = None if teacher is None else Answer(teacher[0], features=teacher[1])
        values = self._add_gradient(NoisyBatch(**batch), answer, share, progress)
        return values, [weight.grad for weight in self._parameters]
