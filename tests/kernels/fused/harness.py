"""Triton's op in one call, under a launch of the test's choice, and its check against float64."""

from functools import partial
from types import SimpleNamespace

import torch
from torch import Tensor

from liftplace.kernels.fused import op
from tests.kernels import harness
from tests.kernels.harness import Run


def run(student: Tensor, teacher: Tensor, size=None, *, launch=None, **options) -> Run:
    """LIFT (no `size`) or PLACE on (rows, n) tensors; a number as weight is passed as a tensor."""
    weight = options.pop("weight", "adaptive")
    if weight != "adaptive":
        weight = torch.tensor(weight, device=student.device)
    forward = partial(op.forward, launch=launch)
    launched = SimpleNamespace(forward=forward, backward=op.backward)
    return harness.run(launched, student, teacher, size, weight=weight, **options)


def assert_agrees(student: Tensor, teacher: Tensor, size=None, *, launch=None, **options) -> Run:
    """As `harness.check`."""
    actual = run(student, teacher, size, launch=launch, **options)
    return harness.check(actual, student, teacher, size, **options)


def few_programs(device: str) -> dict:
    """Choices for `place_launch`: wide tiles for the interpreter's sake; a GPU keeps its own."""
    return {"chunk": 1 << 14, "tile": 1 << 17} if device == "cpu" else {}
