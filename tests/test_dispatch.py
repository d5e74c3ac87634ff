"""The custom ops: opcheck, torch.compile, and what `auto` chooses."""

import importlib.util
from pathlib import Path

import pytest
import torch

from liftplace import _dispatch, lift_loss, place_loss
from liftplace._contract import Options
from liftplace.kernels.cpu import op as native


def _pair(device):
    student = torch.randn(4, 24, device=device)
    return student, student + 0.1 * torch.randn(4, 24, device=device)


@pytest.mark.parametrize("group_size", [5, 8, 24])
def test_opcheck(impl, group_size, device):
    half = torch.tensor(0.5, device=device)
    options = Options(group_size)
    fixed, no_groups = options._replace(fixed_weight=0.5), options._replace(with_groups=False)
    for weight, choice in ((None, options), (half, options), (None, fixed), (None, no_groups)):
        op = _dispatch.forward_ops[impl]
        torch.library.opcheck(op, (*_pair(device), weight, *_dispatch._flat(choice)))
    student, teacher = _pair(device)
    _, fitted = _dispatch.forward(impl, student, teacher, None, options)
    grad_out = torch.ones((), device=device)
    op = _dispatch.backward_ops[impl]
    torch.library.opcheck(op, (student, teacher, *fitted, grad_out, 1, True, True))


@pytest.mark.parametrize("op", [lift_loss, place_loss])
@pytest.mark.parametrize("dynamic", [False, True])
def test_compiles_in_one_graph(impl, op, dynamic, device):
    """Dynamo and AOTAutograd trace the whole call, forward and backward."""

    torch._dynamo.reset()  # the parameters share this code, whose recompilations are limited

    def step(student, teacher):
        loss, fit = op(student * 1.5, teacher, impl=impl, reduction="sum", return_fit=True)
        return loss + 1, fit.weight

    compiled = torch.compile(step, fullgraph=True, dynamic=dynamic, backend="aot_eager")
    for batch in (2, 3):
        student = torch.randn(batch, 3, 6, 6, device=device, requires_grad=True)
        teacher = (student + 0.1 * torch.randn_like(student)).detach()
        expected, weight = step(student, teacher)
        (expected_grad,) = torch.autograd.grad(expected, student)
        loss, weight_compiled = compiled(student, teacher)
        (grad,) = torch.autograd.grad(loss, student)
        torch.testing.assert_close(loss, expected)
        torch.testing.assert_close(weight_compiled, weight)
        torch.testing.assert_close(grad, expected_grad)


@pytest.mark.parametrize("compiled", [False, True])
def test_the_loss_may_be_added_to_in_place(compiled, impl, device):
    """`loss += other`: it is no view, and nothing that the backward reads."""

    def step(student, teacher):
        loss = place_loss(student, teacher, impl=impl)
        loss += 1
        return loss

    torch._dynamo.reset()
    student = torch.randn(2, 3, 6, 6, device=device, requires_grad=True)
    teacher = torch.randn(2, 3, 6, 6, device=device)
    loss = place_loss(student, teacher, impl=impl)
    (expected,) = torch.autograd.grad(loss, student)
    call = torch.compile(step, fullgraph=True, backend="aot_eager") if compiled else step
    changed = call(student, teacher)
    torch.testing.assert_close(changed, loss + 1)
    torch.testing.assert_close(torch.autograd.grad(changed, student)[0], expected)


def test_compiles_with_inductor(device):
    """The default backend, with code around the op for it to fuse."""
    compiled = torch.compile(lambda s, t: 2 * place_loss(s.tanh(), t, impl="torch"), fullgraph=True)
    student = torch.randn(2, 3, 6, 6, device=device, requires_grad=True)
    teacher = torch.randn(2, 3, 6, 6, device=device)
    expected = 2 * place_loss(student.tanh(), teacher, impl="torch")
    (expected_grad,) = torch.autograd.grad(expected, student)
    loss = compiled(student, teacher)
    (grad,) = torch.autograd.grad(loss, student)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(grad, expected_grad)


@pytest.mark.parametrize("op", [lift_loss, place_loss])
def test_double_backward_is_refused(impl, op, device):
    student = torch.randn(2, 3, 8, device=device, requires_grad=True)
    loss = op(student, torch.randn(2, 3, 8, device=device), impl=impl)
    (grad,) = torch.autograd.grad(loss, student, create_graph=True)
    with pytest.raises(RuntimeError, match="no double backward.*impl='reference'"):
        grad.sum().backward()


def test_reference_has_a_double_backward():
    student = torch.randn(2, 3, 8, requires_grad=True)
    loss = place_loss(student, torch.randn(2, 3, 8), impl="reference")
    (grad,) = torch.autograd.grad(loss, student, create_graph=True)
    grad.square().sum().backward()
    assert student.grad.isfinite().all()


@pytest.mark.gpu
def test_auto_on_a_gpu():
    x = torch.zeros(1, 1, 32, device="cuda")
    assert _dispatch.choose("auto", x, x, 32) == "triton"
    assert _dispatch.choose("auto", x.double(), x, 32) == "torch"
    assert _dispatch.choose("auto", x, x, (1 << 20) + 1) == "torch"


@pytest.mark.parametrize("name", ["auto", "triton", "native"])
def test_a_call_looks_for_no_files(name, monkeypatch):
    """A compiler traces the choice, and not every PyTorch traces a search for modules."""
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setattr(native, "not_built", None)
    monkeypatch.setattr(importlib.util, "find_spec", None)
    monkeypatch.setattr(Path, "is_file", None)
    x = torch.zeros(1, 1, 32)
    assert _dispatch.choose(name, x, x, 32) == ("native" if name == "auto" else name)


def test_auto_elsewhere(monkeypatch):
    x = torch.zeros(1, 1, 32)
    assert _dispatch.choose("auto", x, x, 32) == ("native" if native.is_built() else "torch")
    assert _dispatch.choose("auto", x.double(), x, 32) == "torch"
    assert _dispatch.choose("auto", x.to("meta"), x.to("meta"), 32) == "torch"
    monkeypatch.setattr(native, "not_built", "it was not built")
    assert _dispatch.choose("auto", x, x, 32) == "torch"
