"""Memory an op adds: its peak over forward and backward, and what it keeps between them.

On CUDA the caching allocator counts. On a CPU the profiler records every allocation and release of
torch's allocator, from inside opaque ops too; tracemalloc sees NumPy's arrays (and a few kB of
Python objects). The two peaks are added, which can only overstate. Memory that a C++ library takes
from malloc by itself is seen by neither.
"""

import gc
import tracemalloc
from typing import NamedTuple

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from benchmarks.implementations import Implementation


class Memory(NamedTuple):
    """Bytes beyond the inputs. The peak holds the gradient; kept is before the backward."""

    peak: int
    kept: int


def measure(implementation: Implementation, student: Tensor, teacher: Tensor) -> Memory:
    """Memory of one forward and backward. Call it once before: first calls fill caches."""
    gc.collect()
    if student.is_cuda:
        return _cuda(implementation, student, teacher)
    return _cpu(implementation, student, teacher)


def _cuda(implementation: Implementation, student: Tensor, teacher: Tensor) -> Memory:
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    loss = implementation.forward(student, teacher)
    kept = torch.cuda.memory_allocated() - before
    gradient = implementation.gradient(loss, student)
    peak = torch.cuda.max_memory_allocated() - before
    del gradient
    return Memory(peak, kept)


def _cpu(implementation: Implementation, student: Tensor, teacher: Tensor) -> Memory:
    def forward_and_backward():
        implementation.gradient(implementation.forward(student, teacher), student)

    with _profile() as forward:
        loss = implementation.forward(student, teacher)
    del loss  # alive until the profile ended
    with _profile() as both:
        forward_and_backward()
    tracemalloc.start()
    try:
        forward_and_backward()
        _, python = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    return Memory(max(_live_bytes(both)) + python, _live_bytes(forward)[-1])


def _profile() -> profile:
    return profile(activities=[ProfilerActivity.CPU], profile_memory=True)


def _live_bytes(run: profile) -> list[int]:
    """Bytes alive after each allocation and release of the run, in order; 0 at the start."""
    events = [e for e in run.profiler.kineto_results.events() if e.name() == "[memory]"]
    live = [0]
    for event in sorted(events, key=lambda event: event.start_ns()):
        live.append(live[-1] + event.nbytes())
    return live
