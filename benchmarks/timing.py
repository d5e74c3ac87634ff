"""Time contenders against each other: one sample of each in turn, in a new order every round.

Whatever slows the machine down for a while then slows all of them, and the ratio of two samples of
one round is steadier than the ratio of two averages.
"""

import gc
import random
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from benchmarks.implementations import Implementation

PHASES = ("forward", "backward", "both")
_WAIT_CYCLES = 1_000_000  # about 0.5 ms of the GPU's clock, so that a long graph is queued too


@dataclass(frozen=True)
class Contender:
    """sample() runs once and returns ms by phase."""

    implementation: str
    mode: str  # "eager" or "graph"
    l2: str  # "warm" or "cold" on CUDA, "" on a CPU
    sample: Callable[[], dict[str, float]]

    @property
    def key(self) -> tuple[str, str, str]:
        return self.implementation, self.mode, self.l2


def interleave(contenders: list[Contender], rounds: Iterable[int]) -> dict[tuple, list[dict]]:
    """Samples of every contender by its key; the n-th of each come from the same round."""
    order = list(contenders)
    samples = {contender.key: [] for contender in contenders}
    for contender in order:
        contender.sample()  # not counted: first calls fill caches
    shuffle = random.Random(0).shuffle
    gc.collect()
    gc.disable()
    try:
        for _ in rounds:
            shuffle(order)
            for contender in order:
                samples[contender.key].append(contender.sample())
    finally:
        gc.enable()
    return samples


def cpu_contender(implementation: Implementation, student: Tensor, teacher: Tensor) -> Contender:
    def sample():
        start = time.perf_counter()
        loss = implementation.forward(student, teacher)
        middle = time.perf_counter()
        implementation.gradient(loss, student)
        end = time.perf_counter()
        return _phases(implementation, 1e3 * (middle - start), 1e3 * (end - middle))

    return Contender(implementation.name, "eager", "", sample)


def _phases(implementation: Implementation, forward: float, backward: float) -> dict[str, float]:
    if not implementation.differentiable:
        return {"both": forward}
    return {"forward": forward, "backward": backward, "both": forward + backward}


def cuda_contenders(
    implementation: Implementation, student: Tensor, teacher: Tensor, flush: Tensor
) -> tuple[list[Contender], str]:
    """Eager and captured, each from a warm and a cold L2; and why there is no graph, if so.

    Eager starts on an idle GPU, so that launches which the host makes too late count. The graph is
    queued behind a wait on the GPU, so that its time alone counts.
    """
    name = implementation.name

    def step():
        return implementation.gradient(implementation.forward(student, teacher), student)

    contenders = [
        Contender(name, "eager", "warm", lambda: _eager(implementation, student, teacher, step)),
        Contender(name, "eager", "cold",
                  lambda: _eager(implementation, student, teacher, flush.zero_)),
    ]  # fmt: skip
    if implementation.no_graph:
        return contenders, implementation.no_graph
    try:
        graph = capture(step)
    except RuntimeError as error:
        return contenders, f"capture failed: {str(error).splitlines()[0]}"
    contenders += [
        Contender(name, "graph", "warm", lambda: replay(graph, graph.replay)),
        Contender(name, "graph", "cold", lambda: replay(graph, flush.zero_)),
    ]
    return contenders, ""


def _eager(implementation, student, teacher, prepare) -> dict[str, float]:
    prepare()
    torch.cuda.synchronize()
    start, middle, end = (torch.cuda.Event(enable_timing=True) for _ in PHASES)
    start.record()
    loss = implementation.forward(student, teacher)
    middle.record()
    implementation.gradient(loss, student)
    end.record()
    end.synchronize()
    return _phases(implementation, start.elapsed_time(middle), middle.elapsed_time(end))


def replay(graph: torch.cuda.CUDAGraph, prepare: Callable[[], object]) -> dict[str, float]:
    """Time of one replay after `prepare`, without the host's."""
    prepare()
    torch.cuda._sleep(_WAIT_CYCLES)  # the host queues the rest meanwhile
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    graph.replay()
    end.record()
    end.synchronize()
    return {"both": start.elapsed_time(end)}


def capture(step: Callable[[], Tensor | None]) -> torch.cuda.CUDAGraph:
    """A CUDA graph of one step, after a few on a side stream, as the CUDA graph docs ask."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph


def l2_flush() -> Tensor:
    """A buffer that pushes everything else out of the L2 cache when it is written."""
    size = torch.cuda.get_device_properties(torch.cuda.current_device()).L2_cache_size
    return torch.empty(4 * size, dtype=torch.uint8, device="cuda")


def count_launches(implementation: Implementation, student: Tensor, teacher: Tensor) -> int:
    """Kernels, copies and fills that one forward and backward puts on the GPU.

    Time nothing after it in the same process: the profiler may slow every later launch.
    """
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as run:
        implementation.gradient(implementation.forward(student, teacher), student)
        torch.cuda.synchronize()
    return sum(
        event.device_type == torch.autograd.DeviceType.CUDA and not event.is_user_annotation
        for event in run.events()
    )
