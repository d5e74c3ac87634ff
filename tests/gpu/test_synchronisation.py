"""Neither forward nor backward waits for the GPU."""

import pytest
import torch

from .harness import CALLS, IMPLS, SHAPES, WEIGHTS, loss_and_gradient, pair, runs_here

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("impl", ["torch", *IMPLS])
@pytest.mark.parametrize("weight", WEIGHTS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("call", CALLS)
def test_no_host_synchronisation(call, shape, weight, impl):
    runs_here(impl)
    student, teacher = pair(shape)
    if weight == "tensor":
        weight = torch.tensor(0.6, device="cuda")
    loss_and_gradient(call, student, teacher, impl, weight=weight)  # compiles
    torch.cuda.set_sync_debug_mode("error")
    try:
        loss_and_gradient(call, student, teacher, impl, weight=weight)
    finally:
        torch.cuda.set_sync_debug_mode("default")
