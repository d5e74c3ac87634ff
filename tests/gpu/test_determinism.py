"""The same bits every time: over 100 runs, and on two streams at once as one after another."""

import pytest
import torch

from liftplace import lift_loss, place_loss

from .harness import CALLS, IMPLS, SHAPES, loss_and_gradient, pair, runs_here

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("call", CALLS)
def test_100_runs_give_the_same_bits(call, shape, impl):
    runs_here(impl)
    student, teacher = pair(shape)
    loss, gradient = loss_and_gradient(call, student, teacher, impl)
    for _ in range(100):
        again = loss_and_gradient(call, student, teacher, impl)
        assert torch.equal(loss, again[0]) and torch.equal(gradient, again[1])


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("op", [lift_loss, place_loss])
def test_two_streams_at_once(op, shape, impl):
    """Each stream has its own inputs; nothing that an op allocates may be shared."""
    runs_here(impl)
    inputs = [pair(shape, seed) for seed in (1, 2)]
    expected = [loss_and_gradient(op, *tensors, impl) for tensors in inputs]
    streams = [torch.cuda.Stream() for _ in inputs]
    for stream in streams:
        stream.wait_stream(torch.cuda.current_stream())
    actual = [[], []]
    for _ in range(20):
        for stream, (student, teacher), results in zip(streams, inputs, actual, strict=True):
            with torch.cuda.stream(stream):
                results.append(loss_and_gradient(op, student, teacher, impl))
    torch.cuda.synchronize()
    for (loss, gradient), results in zip(expected, actual, strict=True):
        for again in results:
            assert torch.equal(loss, again[0]) and torch.equal(gradient, again[1])
