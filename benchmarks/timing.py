"""Time contenders against each other: one sample of each in turn, in a new order every round.

Whatever slows the machine down for a while then slows all of them, and the ratio of two samples of
one round is steadier than the ratio of two averages.
"""

import gc
import random
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from benchmarks.implementations import Implementation

UNROLLED = 20  # steps in a graph, at most
_GRAPH_MS = 4.0  # of steps in a graph are enough: then a replay's own time is a thousandth
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


def in_time(wanted: Sequence, deadline: float) -> Iterator:
    """Those of `wanted` that end before `deadline` (of time.monotonic) if each takes as long as the
    longest so far; the first, in which nvcc builds and all starts, tells about the second alone."""
    took: list[float] = []
    for number, case in enumerate(wanted, 1):
        start = time.monotonic()
        if start + max(took[1:] or took, default=0.0) >= deadline:
            return
        print(f"[{number}/{len(wanted)}] {case}", file=sys.stderr, flush=True)
        yield case
        took.append(time.monotonic() - start)


def interleave(contenders: list[Contender], rounds: int) -> dict[tuple, list[dict]]:
    """Samples of every contender by its key; the n-th of each come from the same round."""
    order = list(contenders)
    samples = {contender.key: [] for contender in contenders}
    for contender in order:
        contender.sample()  # not counted: first calls fill caches
    shuffle = random.Random(0).shuffle
    gc.collect()
    gc.disable()
    try:
        for _ in range(rounds):
            shuffle(order)
            for contender in order:
                samples[contender.key].append(contender.sample())
    finally:
        gc.enable()
    return samples


class Clock:
    """Marks in time, in ms: the host's clock, on a GPU its events."""

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"

    def start(self) -> None:
        self._wait()
        self._marks = []
        self.mark()

    def mark(self) -> None:
        if not self._cuda:
            self._marks.append(1e3 * time.perf_counter())
            return
        self._marks.append(torch.cuda.Event(enable_timing=True))
        self._marks[-1].record()

    def stop(self) -> list[float]:
        self.mark()
        self._wait()
        first = self._marks[0]
        return [first.elapsed_time(each) if self._cuda else each - first for each in self._marks]

    def _wait(self) -> None:
        if self._cuda:
            torch.cuda.synchronize()


def cpu_contender(implementation: Implementation, student: Tensor, teacher: Tensor) -> Contender:
    sample = partial(_eager, implementation, student, teacher)
    return Contender(implementation.name, "eager", "", sample)


def cuda_contenders(
    implementation: Implementation, student: Tensor, teacher: Tensor, flush: Tensor | None = None
) -> tuple[list[Contender], str]:
    """Eager and captured, from a warm and, with `flush`, a cold L2; and why no graph, if so.

    Eager starts on an idle GPU, so that launches which the host makes too late count. A graph's
    time is the GPU's alone. Cold: each step follows a write of `flush`, whose time is taken off.
    """
    name = implementation.name

    def step():
        return implementation.gradient(implementation.forward(student, teacher), student)

    def cold_step():
        flush.zero_()
        step()

    eager = partial(_eager, implementation, student, teacher)
    contenders = [Contender(name, "eager", "warm", partial(eager, step))]
    if flush is not None:
        contenders.append(Contender(name, "eager", "cold", partial(eager, flush.zero_)))
    if implementation.no_graph:
        return contenders, implementation.no_graph
    try:
        warm = graphed(step)
        contenders.append(Contender(name, "graph", "warm", lambda: {"both": warm()}))
        if flush is not None:
            cold, flushes = graphed(cold_step), graphed(flush.zero_)
            difference = Contender(name, "graph", "cold", lambda: {"both": cold() - flushes()})
            contenders.append(difference)
    except RuntimeError as error:
        torch.cuda.synchronize()  # raises where the GPU is lost: the next contender is not to blame
        return contenders, f"capture failed: {str(error).splitlines()[0]}"
    return contenders, ""


def _eager(implementation, student, teacher, prepare=lambda: None) -> dict[str, float]:
    clock = Clock(student.device)
    prepare()
    clock.start()
    loss = implementation.forward(student, teacher)
    clock.mark()
    implementation.gradient(loss, student)
    _, middle, end = clock.stop()
    if not implementation.differentiable:
        return {"both": middle}
    return {"forward": middle, "backward": end - middle, "both": end}


def graphed(step: Callable[[], object]) -> Callable[[], float]:
    """The time of a step in a CUDA graph, in ms, at each call; the L2 holds what replays left.

    A replay costs 2 to 4 us by itself, and some ops take 10. So the graph holds many steps, up to
    `UNROLLED`, and its time is divided; fewer of steps so long that it does not matter.
    """
    for _ in range(2):
        step()  # compiles
    count = unrolled(_elapsed(step))
    graph = capture(step, count)

    def sample() -> float:
        graph.replay()
        torch.cuda._sleep(_WAIT_CYCLES)  # the host queues the rest meanwhile
        return _elapsed(graph.replay) / count

    return sample


def unrolled(ms: float) -> int:
    """How many steps of `ms` a graph holds."""
    return max(1, min(UNROLLED, round(_GRAPH_MS / ms)))


def _elapsed(call: Callable[[], object]) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    call()
    end.record()
    end.synchronize()
    return start.elapsed_time(end)


def capture(step: Callable[[], object], count: int = 1) -> torch.cuda.CUDAGraph:
    """A CUDA graph of `count` steps, after a few on a side stream, as the CUDA graph docs ask."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(count):
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
