"""What follows a call: tracers, dispatch modes, forward-mode AD, torch.func."""

import warnings

import pytest
import torch
from torch.autograd import forward_ad
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._python_dispatch import TorchDispatchMode

from liftplace import lift_loss, place_loss

LOSSES = [lift_loss, place_loss]


def pair(*shape, device="cpu"):
    student = torch.randn(shape, device=device)
    return student, 0.9 * student + 0.1 * torch.randn(shape, device=device)


@pytest.mark.parametrize("tracing_mode", ["real", "fake", "symbolic"])
@pytest.mark.parametrize("loss_fn", LOSSES)
def test_make_fx_records_the_op(loss_fn, tracing_mode, impl, device):
    """Recorded on one input, right on another; gradient included."""

    def gradient(student, teacher):
        student = student.detach().requires_grad_()
        loss = loss_fn(student, teacher, impl=impl)
        return loss.detach(), torch.autograd.grad(loss, student)[0]

    graph = make_fx(gradient, tracing_mode=tracing_mode)(*pair(2, 3, 8, 8, device=device))
    other = torch.randn(2, 2, 3, 8, 8, device=device).unbind()
    for recorded, expected in zip(graph(*other), gradient(*other), strict=True):
        torch.testing.assert_close(recorded, expected)


@pytest.mark.parametrize("loss_fn", LOSSES)
@pytest.mark.parametrize("requires_grad", [False, True])
def test_jit_trace(loss_fn, requires_grad, impl, device):
    """`auto` is recorded in PyTorch's own operations; a named kernel says why it cannot be."""
    student, teacher = pair(2, 3, 8, 8, device=device)
    student.requires_grad_(requires_grad)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of sizes that become constants, and of deprecation
        traced = torch.jit.trace(loss_fn, (student, teacher))
        with pytest.raises(RuntimeError, match="torch.jit.trace.*use impl='reference'"):
            torch.jit.trace(lambda s, t: loss_fn(s, t, impl=impl), (student, teacher))
    other = torch.randn(2, 2, 3, 8, 8, device=device).unbind()
    torch.testing.assert_close(traced(*other), loss_fn(*other, impl="reference"))


def test_a_mode_that_passes_on_sees_one_op_each_way(impl, device):
    called = []

    class Recorder(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            called.append(function.overloadpacket.__name__)
            return function(*args, **(kwargs or {}))

    student, teacher = pair(2, 3, 20, device=device)
    student.requires_grad_()
    expected = place_loss(student, teacher, impl=impl)
    with Recorder():
        loss = place_loss(student, teacher, impl=impl)
        (grad,) = torch.autograd.grad(loss, student)
    assert called.count(f"{impl}_forward") == called.count(f"{impl}_backward") == 1
    assert torch.equal(loss, expected)
    assert torch.equal(grad, torch.autograd.grad(expected, student)[0])


@pytest.mark.parametrize("loss_fn", LOSSES)
@pytest.mark.parametrize("requires_grad", [False, True])
def test_forward_mode(loss_fn, requires_grad, impl, device):
    """The tangent of the loss is the gradient's product with the student's."""
    student, teacher = pair(2, 3, 8, 8, device=device)
    direction = torch.randn_like(student)
    leaf = student.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss_fn(leaf, teacher, impl=impl), leaf)
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(student.requires_grad_(requires_grad), direction)
        loss, tangent = forward_ad.unpack_dual(loss_fn(dual, teacher, impl=impl))
    torch.testing.assert_close(tangent, (gradient * direction).sum(), rtol=1e-4, atol=1e-6)
    assert loss.requires_grad == requires_grad


def test_a_teacher_with_a_tangent_is_refused(device):
    student, teacher = pair(2, 3, 8, device=device)
    with forward_ad.dual_level(), pytest.raises(ValueError, match="teacher has a tangent"):
        place_loss(student, forward_ad.make_dual(teacher, teacher))


@pytest.mark.parametrize("loss_fn", LOSSES)
def test_torch_func(loss_fn, impl, device):
    """`auto` takes the reference; a named kernel says so."""
    student, teacher = pair(4, 3, 8, device=device)
    leaf = student.clone().requires_grad_()
    loss = loss_fn(leaf, teacher, impl="reference")
    (gradient,) = torch.autograd.grad(loss, leaf)
    torch.testing.assert_close(torch.func.grad(loss_fn)(student, teacher), gradient)
    value, pull = torch.func.vjp(lambda s: loss_fn(s, teacher), student)
    torch.testing.assert_close(value, loss)
    torch.testing.assert_close(pull(torch.ones_like(value))[0], gradient)
    each = torch.vmap(lambda s, t: loss_fn(s[None], t[None]))(student, teacher)
    for sample in range(4):
        one = loss_fn(student[sample : sample + 1], teacher[sample : sample + 1])
        torch.testing.assert_close(each[sample], one)
    with pytest.raises(RuntimeError, match=f"impl='{impl}' cannot run here.*impl='reference'"):
        torch.func.grad(lambda s: loss_fn(s, teacher, impl=impl))(student)


@pytest.mark.parametrize("loss_fn", LOSSES)
def test_a_weight_that_changes_compiles_once(loss_fn, device):
    compiled = []

    def backend(graph, inputs):
        compiled.append(graph)
        return graph

    torch._dynamo.reset()
    student, teacher = pair(2, 3, 8, device=device)

    @torch.compile(backend=backend, fullgraph=True)
    def step(student, teacher, weight):
        return loss_fn(student, teacher, weight=weight)

    for weight in torch.linspace(0.1, 0.9, 12).tolist():
        expected = loss_fn(student, teacher, weight=weight)
        torch.testing.assert_close(step(student, teacher, weight), expected)
    assert len(compiled) <= 2  # once for the first number, once for any
