"""CUDA graphs: captured once and replayed on new inputs, and inside a compiled training step."""

import copy

import pytest
import torch

from benchmarks.timing import capture
from liftplace import lift_loss, place_loss

from .harness import CALLS, IMPLS, SHAPES, loss_and_gradient, pair, runs_here

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("impl", ["torch", *IMPLS])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("call", CALLS)
def test_replay_on_new_inputs_equals_eager(call, shape, impl):
    runs_here(impl)
    student, teacher = pair(shape)
    result = {}

    def step():
        result["of the graph"] = loss_and_gradient(call, student, teacher, impl)

    graph = capture(step)
    loss, gradient = result["of the graph"]
    for seed in (1, 2):
        with torch.no_grad():
            for old, new in zip((student, teacher), pair(shape, seed), strict=True):
                old.copy_(new)
        graph.replay()
        expected = loss_and_gradient(call, student, teacher, impl)
        assert torch.equal(loss, expected[0]) and torch.equal(gradient, expected[1])


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("op", [lift_loss, place_loss])
def test_training_with_reduce_overhead(op, impl, monkeypatch):
    """Ten steps on changing inputs go where eager steps go.

    Only nearly so: rounding moves elements between groups, and a group's slope over the kink at 1.
    """
    runs_here(impl)
    torch._dynamo.reset()
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)  # the two would round apart
    eager = torch.nn.Conv2d(3, 3, 3, padding=1, device="cuda")
    compiled = copy.deepcopy(eager)
    noisy, teacher = (x.detach() for x in pair((8, 3, 32, 32)))

    def train(model, wrap):
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        forward = wrap(lambda x, t: op(model(x), t, impl=impl))
        losses = []
        for number in range(10):
            torch.compiler.cudagraph_mark_step_begin()
            loss = forward(noisy + 0.1 * number, teacher)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.detach().clone())
        return torch.stack(losses)

    expected = train(eager, lambda f: f)
    actual = train(compiled, lambda f: torch.compile(f, mode="reduce-overhead", fullgraph=True))
    torch.testing.assert_close(actual[0], expected[0], rtol=1e-5, atol=0)
    torch.testing.assert_close(actual, expected, rtol=0.03, atol=0)
    assert expected[-1] < 0.8 * expected[0]
