"""CUDA graphs as a CPU can have them: what is recorded is every operation, and a replay repeats
them on the same memory. A replay runs no Python, so a step that depends on it is found out."""

from contextlib import contextmanager, nullcontext
from types import SimpleNamespace

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from liftplace.train import cuda_graphs


class Recording(TorchDispatchMode):
    """Stands for torch.cuda.CUDAGraph and for what records it."""

    def __init__(self) -> None:
        super().__init__()
        self.work = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function is torch.ops.aten._local_scalar_dense.default:
            raise RuntimeError("a value is read on the host")
        result = function(*args, **(kwargs or {}))
        self.work.append((function, args, kwargs or {}, _tensors(result)))
        return result

    def replay(self) -> None:
        with torch.no_grad():
            for function, args, kwargs, recorded in self.work:
                for own, fresh in zip(recorded, _tensors(function(*args, **kwargs)), strict=True):
                    if own.data_ptr() != fresh.data_ptr():  # a view or a write in place is there
                        own.copy_(fresh)


def _tensors(result) -> list[Tensor]:
    return [leaf for leaf in tree_flatten(result)[0] if isinstance(leaf, Tensor)]


def on_a_cpu(monkeypatch) -> None:
    """Let `cuda_graphs` record on a CPU."""

    @contextmanager
    def graph(recording, capture_error_mode):
        with recording:
            yield

    stream = SimpleNamespace(wait_stream=lambda _: None)
    cuda = SimpleNamespace(CUDAGraph=Recording, graph=graph, stream=lambda _: nullcontext())
    cuda.Stream = cuda.current_stream = lambda: stream
    random = SimpleNamespace(fork_rng=lambda _: torch.random.fork_rng(devices=[]))
    stand_in = SimpleNamespace(cuda=cuda, random=random, Tensor=torch.Tensor, full=torch.full)
    monkeypatch.setattr(cuda_graphs, "torch", stand_in)
    monkeypatch.setattr("liftplace.train.trainer.check_cuda_graphs", lambda accelerator: None)
