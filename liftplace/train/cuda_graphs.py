"""Work that a GPU repeats, recorded once as a CUDA graph and launched whole.

A step of a small model is hundreds of kernels of a few microseconds each, which Python launches
slower than a GPU runs them. A graph holds the kernels of the eager step, so that both learn the
same, and is recorded in seconds, where torch.compile takes minutes a model.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_map

from liftplace.common.errors import UsageError
from liftplace.models.noise import NoisyBatch

WARM_UPS = 3  # libraries choose algorithms and allocate workspaces at first calls


def check_cuda_graphs(accelerator: Accelerator) -> None:
    """Raises UsageError where no step can be recorded."""
    if accelerator.device.type != "cuda":
        raise UsageError(
            f"--cuda_graphs needs a CUDA device, and this run is on {accelerator.device}: "
            "leave it out"
        )
    if accelerator.num_processes > 1:
        raise UsageError(
            f"--cuda_graphs is for one process, not {accelerator.num_processes}: leave it out"
        )


class CapturedFunction:
    """A function as a CUDA graph, recorded at the first call.

    Args:
        function: of tensors on one CUDA device, in dicts, lists and tuples; other arguments must
            stay the same. It may draw from the device's default generator; it may not wait for the
            device, nor depend on anything else that changes between calls.
    """

    def __init__(self, function: Callable) -> None:
        self._function = function
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, *arguments: Any) -> Any:
        """What the function returns: the same tensors at every call, which the next overwrites.

        Raises:
            UsageError: the function cannot be recorded.
            ValueError: the arguments are not like those of the first call.
        """
        leaves, structure = tree_flatten(arguments)
        signature = structure, [_signature(leaf) for leaf in leaves]
        if self._graph is None:
            self._signature = signature
            self._record(arguments)
        elif signature != self._signature:
            raise ValueError(f"a CUDA graph of {self._signature} was called with {signature}")
        values = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        for own, value in zip(self._inputs, values, strict=True):
            own.copy_(value)
        self._graph.replay()
        return self._outputs

    def _record(self, arguments: tuple) -> None:
        own = tree_map(lambda leaf: leaf.clone() if isinstance(leaf, Tensor) else leaf, arguments)
        self._inputs = [leaf for leaf in tree_flatten(own)[0] if isinstance(leaf, Tensor)]
        graph, side = torch.cuda.CUDAGraph(), torch.cuda.Stream()
        # What is drawn while recording would be missing from the first replay.
        with torch.random.fork_rng([self._inputs[0].device]):
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(WARM_UPS):
                    self._function(*own)
            torch.cuda.current_stream().wait_stream(side)
            try:
                # Not "global": the thread that pins batches may allocate meanwhile.
                with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                    self._outputs = self._function(*own)
            except RuntimeError as error:
                reason = str(error).splitlines()[0]
                raise UsageError(
                    f"--cuda_graphs: this model cannot be recorded ({reason}): leave it out"
                ) from error
        self._graph = graph


def _signature(leaf: Any) -> Any:
    return (leaf.shape, leaf.dtype, leaf.device) if isinstance(leaf, Tensor) else leaf


class RecordedGradient:
    """Forward, loss and backward of a batch, launched whole.

    Args:
        add_gradient: called with a batch, the teacher's `ModelOutput`, a share and the progress.
            Adds to the gradients of `parameters` and gives a tensor.
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
        self._graph = CapturedFunction(self._fresh_gradient)

    def __call__(
        self,
        batch: NoisyBatch,
        teacher: tuple | None,
        share: float,
        sync_gradients: bool,
        progress: float,
    ) -> Tensor:
        """As `add_gradient`; `sync_gradients`: whether the optimiser steps before the next call."""
        before = [weight.grad for weight in self._parameters]
        if teacher is not None:
            teacher = teacher._replace(features=dict(teacher.features))  # which a graph can hold
        progress = (
            torch.full((), progress, device=batch.noisy.device) if self._is_scheduled else 0.0
        )
        values, fresh = self._graph(vars(batch), teacher, share, progress)
        for weight, old, new in zip(self._parameters, before, fresh, strict=True):
            if old is not None and new is not None:
                weight.grad = old.add_(new)
            elif new is not None:  # the graph's own memory, which its next replay overwrites
                weight.grad = new if sync_gradients else new.clone()
            else:
                weight.grad = old
        return values

    def _fresh_gradient(
        self, batch: dict, teacher: tuple | None, share: float, progress: float | Tensor
    ) -> tuple[Tensor, list[Tensor | None]]:
        """The terms, and the gradient of this batch alone: this is what the graph records."""
        for weight in self._parameters:
            weight.grad = None
        values = self._add_gradient(NoisyBatch(**batch), teacher, share, progress)
        return values, [weight.grad for weight in self._parameters]
