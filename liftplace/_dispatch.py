"""impl -> implementation: the custom ops, which one `auto` takes, and why one cannot run.

An implementation is a module with `forward`, which fits and sums, `backward`, which streams the
gradient, both as in `_closed_form`, and `why_not`. This is the only importer of
`liftplace.kernels`, whose `op` modules import Triton or load a library when they first run.
"""

import torch
from torch import Tensor

from liftplace import _closed_form
from liftplace._arguments import accumulation_dtype
from liftplace.kernels import op as _triton
from liftplace.kernels.cpu import op as _native
from liftplace.kernels.cuda import op as _cuda

IMPLEMENTATIONS = ("auto", "triton", "cuda", "native", "torch", "reference")
_MODULES = {"torch": _closed_form, "triton": _triton, "cuda": _cuda, "native": _native}


def choose(impl: str, student: Tensor, teacher: Tensor, length: int) -> str:
    """The implementation to run; RuntimeError with the reason where one named cannot."""
    if impl not in IMPLEMENTATIONS:
        choices = ", ".join(repr(name) for name in IMPLEMENTATIONS)
        raise ValueError(f"impl={impl!r} is not known: pass one of {choices}")
    if impl == "reference":
        return impl
    if impl == "torch" or student.numel() == 0:  # kernels need not know of an empty batch
        return "torch"
    if impl == "auto":
        wanted = preferred(student.device.type)
        return next(name for name in wanted if not _why_not(name, student, teacher, length))
    reason = _why_not(impl, student, teacher, length)
    if reason:
        raise RuntimeError(f"impl={impl!r} cannot run here: {reason}")
    return impl


def preferred(device: str) -> tuple[str, ...]:
    """What `auto` tries on a kind of device, the fastest first.

    On a CPU the C++ op is ahead at every size, group size and op of
    benchmarks/results/sweep_cpu.csv, so there is no threshold. The order on a GPU is an estimate
    until `python -m benchmarks sweep --device cuda` has run.
    """
    return {"cuda": ("triton", "torch"), "cpu": ("native", "torch")}.get(device, ("torch",))


def _why_not(name: str, student: Tensor, teacher: Tensor, length: int) -> str | None:
    return None if name == "torch" else _MODULES[name].why_not(student, teacher, length)


def forward(impl: str, *args) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """loss, group, coef, terms of `_closed_form.forward`, by the named implementation."""
    return (forward_ops[impl] if _is_traced(args[0]) else _MODULES[impl].forward)(*args)


def backward(impl: str, *args) -> Tensor:
    """The gradient of `_closed_form.backward`, by the named implementation."""
    student = args[0]
    differentiated = torch.is_grad_enabled() and student.requires_grad  # to be refused by the op
    traced = differentiated or _is_traced(student)
    return (backward_ops[impl] if traced else _MODULES[impl].backward)(*args)


def _is_traced(x: Tensor) -> bool:
    """Whether only the opaque op will do: a compiler or a fake tensor looks on.

    Otherwise the plain function saves what the op costs to call.
    """
    return torch.compiler.is_compiling() or type(x) not in (Tensor, torch.nn.Parameter)


def _fake_forward(student, teacher, weight, fixed, group_size, eps, squared, with_coarse,
                  with_fine, scale, with_groups):  # fmt: skip
    rows, n = student.shape
    groups = -(-n // group_size)
    dtype = accumulation_dtype(student, teacher)
    shape = _closed_form.group_shape(rows, n, groups, with_groups)
    return (
        student.new_empty((), dtype=dtype),
        student.new_empty(shape, dtype=_closed_form.group_dtype(groups)),
        student.new_empty((6, rows, groups), dtype=dtype),
        student.new_empty((4,), dtype=dtype),
    )


def _fake_backward(student, teacher, group, coef, terms, grad_out, scale, with_coarse, with_fine):
    return torch.empty_like(student)


def _refuse_double_backward(ctx, *grads):
    raise RuntimeError(
        "lift_loss and place_loss have no double backward: pass impl='reference', whose gradient "
        "is an ordinary autograd graph"
    )


def _ops(impl: str) -> tuple:
    """The opaque pair `liftplace::<impl>_forward` and `..._backward`."""

    def define(half: str, like):
        return torch.library.custom_op(
            f"liftplace::{impl}_{half}",
            lambda *args: getattr(_MODULES[impl], half)(*args),
            mutates_args=(),
            schema=torch.library.infer_schema(like, mutates_args=()),
        )

    forward_op = define("forward", _closed_form.forward)
    forward_op.register_fake(_fake_forward)
    backward_op = define("backward", _closed_form.backward)
    backward_op.register_fake(_fake_backward)
    backward_op.register_autograd(_refuse_double_backward)
    return forward_op, backward_op


forward_ops, backward_ops = {}, {}
for _name in _MODULES:
    forward_ops[_name], backward_ops[_name] = _ops(_name)
