"""impl -> implementation: which one `auto` takes, why one cannot run, and the custom ops.

An implementation is a module that keeps `liftplace._contract`. This is the only importer of
`liftplace.kernels`, whose `op` modules import Triton or load a library when they first run.
"""

import torch
from torch import Tensor
from torch.utils._python_dispatch import _get_current_dispatch_mode

from liftplace import _closed_form
from liftplace._contract import Fitted, LossSum, Options, new_fitted
from liftplace.kernels.cpu import op as _native
from liftplace.kernels.cuda import op as _cuda
from liftplace.kernels.fused import op as _triton

IMPLEMENTATIONS = ("auto", "triton", "cuda", "native", "torch", "reference")
_MODULES = {"torch": _closed_form, "triton": _triton, "cuda": _cuda, "native": _native}


def choose(impl: str, student: Tensor, teacher: Tensor, length: int) -> str:
    """The implementation to run; RuntimeError with the reason where one named cannot."""
    check_impl(impl)
    if impl == "reference":
        return impl
    if _sees_plain_operations_only(student) or _sees_plain_operations_only(teacher):
        if impl == "auto":
            return "reference"
        raise RuntimeError(
            f"impl={impl!r} cannot run here: torch.func (grad, vjp, jvp, vmap) and torch.jit.trace "
            "follow PyTorch's own operations alone; use impl='reference', as 'auto' does here"
        )
    if impl == "torch" or student.numel() == 0:  # kernels need not know of an empty batch
        return "torch"
    if impl == "auto":
        names = preferred(student.device.type)
        return next(name for name in names if not _reason(name, student, teacher, length))
    reason = _reason(impl, student, teacher, length)
    if reason:
        raise RuntimeError(f"impl={impl!r} cannot run here: {reason}")
    return impl


def check_impl(impl: str) -> None:
    """ValueError unless there is such an implementation, whether it can run here or not."""
    if impl not in IMPLEMENTATIONS:
        choices = ", ".join(repr(name) for name in IMPLEMENTATIONS)
        raise ValueError(f"impl={impl!r} is not known: pass one of {choices}")


def preferred(device: str) -> tuple[str, ...]:
    """What `auto` tries on a kind of device, the fastest first.

    On a CPU the C++ op is ahead at every size, group size and op of
    benchmarks/results/sweep_cpu.csv, so there is no threshold. The order on a GPU is an estimate
    until `python -m benchmarks sweep --device cuda` has run.
    """
    return {"cuda": ("triton", "torch"), "cpu": ("native", "torch")}.get(device, ("torch",))


def _reason(name: str, student: Tensor, teacher: Tensor, length: int) -> str | None:
    return _MODULES[name].unsupported_reason(student, teacher, length)


def forward(
    impl: str, student: Tensor, teacher: Tensor, fine_weight: Tensor | None, options: Options
) -> tuple[Tensor, Fitted]:
    """The loss and what was fitted, by the named implementation."""
    if not _is_traced(student):
        return _MODULES[impl].forward(student, teacher, fine_weight, options)
    loss, *fitted = forward_ops[impl](student, teacher, fine_weight, *_flat(options))
    return loss, Fitted(*fitted)


def backward(
    impl: str,
    student: Tensor,
    teacher: Tensor,
    fitted: Fitted,
    grad_out: Tensor,
    loss_sum: LossSum,
) -> Tensor:
    """The gradient, by the named implementation."""
    differentiated = torch.is_grad_enabled() and student.requires_grad  # to be refused by the op
    if not differentiated and not _is_traced(student):
        return _MODULES[impl].backward(student, teacher, fitted, grad_out, loss_sum)
    with_coarse, with_fine, scale = loss_sum
    op = backward_ops[impl]
    return op(student, teacher, *fitted, grad_out, scale, with_coarse, with_fine)


def _is_traced(x: Tensor) -> bool:
    """Whether a compiler, a fake tensor or a dispatch mode (make_fx) follows the call, which needs
    the opaque op: what fills memory by its address would not be seen.

    Otherwise the plain function saves what the op costs to call.
    """
    return (
        torch.compiler.is_compiling()
        or type(x) not in (Tensor, torch.nn.Parameter)
        or _get_current_dispatch_mode() is not None
    )


def _sees_plain_operations_only(x: Tensor) -> bool:
    """Whether torch.jit traces, or x stands for another tensor inside torch.func and has no memory
    of its own."""
    if torch.compiler.is_compiling():
        return False
    return torch.jit.is_tracing() or torch._C._functorch.is_functorch_wrapped_tensor(x)


# A custom op takes no tuple of options, so here they are flat. The names and their order are those
# of programs that were exported before.
_FORWARD_SCHEMA = (
    "(Tensor student, Tensor teacher, Tensor? weight, float? fixed, SymInt group_size, float eps, "
    "bool squared, bool with_coarse, bool with_fine, SymInt scale, bool with_groups) "
    "-> (Tensor, Tensor, Tensor, Tensor)"
)
_BACKWARD_SCHEMA = (
    "(Tensor student, Tensor teacher, Tensor group, Tensor coef, Tensor terms, Tensor grad_out, "
    "SymInt scale, bool with_coarse, bool with_fine) -> Tensor"
)


def _flat(options: Options) -> tuple:
    """The options as the forward op takes them."""
    group_size, eps, squared, fixed_weight, loss_sum, with_groups = options
    return fixed_weight, group_size, eps, squared, *loss_sum, with_groups


def _options(fixed_weight, group_size, eps, squared, *rest) -> Options:
    """The inverse of `_flat`."""
    *loss_sum, with_groups = rest
    return Options(group_size, eps, squared, fixed_weight, LossSum(*loss_sum), with_groups)


def _fake_forward(student, teacher, fine_weight, *flat):
    fitted = new_fitted(student, teacher, _options(*flat))
    return fitted.coef.new_empty(()), *fitted


def _fake_backward(student, *rest):
    return torch.empty_like(student)


def _refuse_double_backward(ctx, *grads):
    raise RuntimeError(
        "lift_loss and place_loss have no double backward: pass impl='reference', whose gradient "
        "is an ordinary autograd graph"
    )


def _ops(impl: str) -> tuple:
    """The opaque pair `liftplace::<impl>_forward` and `..._backward`."""

    def run_forward(student, teacher, fine_weight, *flat):
        options = _options(*flat)
        loss, fitted = _MODULES[impl].forward(student, teacher, fine_weight, options)
        return loss, *fitted

    def run_backward(student, teacher, group, coef, stats, grad_out, scale, *wanted):
        fitted, loss_sum = Fitted(group, coef, stats), LossSum(*wanted, scale)
        return _MODULES[impl].backward(student, teacher, fitted, grad_out, loss_sum)

    def define(half: str, function, schema: str):
        name = f"liftplace::{impl}_{half}"
        return torch.library.custom_op(name, function, mutates_args=(), schema=schema)

    forward_op = define("forward", run_forward, _FORWARD_SCHEMA)
    forward_op.register_fake(_fake_forward)
    backward_op = define("backward", run_backward, _BACKWARD_SCHEMA)
    backward_op.register_fake(_fake_backward)
    backward_op.register_autograd(_refuse_double_backward)
    return forward_op, backward_op


forward_ops, backward_ops = {}, {}
for _name in _MODULES:
    forward_ops[_name], backward_ops[_name] = _ops(_name)
