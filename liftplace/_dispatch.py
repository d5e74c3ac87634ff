"""impl -> implementation: the custom ops, which one `auto` takes, and why one cannot run.

Each implementation is a pair of opaque `torch.library` ops with one signature: `forward` fits and
sums, `backward` streams the gradient. This is the only importer of `liftplace.kernels`, and it
imports them when they first run.
"""

import importlib.util
import os

import torch
from torch import Tensor

from liftplace import _closed_form
from liftplace._arguments import accumulation_dtype

IMPLEMENTATIONS = ("auto", "triton", "cuda", "native", "torch", "reference")
_NOT_BUILT = {
    "cuda": "the CUDA C++ kernels are not part of this version; use impl='triton' or 'auto'",
    "native": "the C++ CPU kernel is not part of this version; use impl='torch' or 'auto'",
}
TRITON_MAX_LENGTH = 1 << 20  # elements of a row, the longest that is tested


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
        on_gpu = student.device.type == "cuda"
        return "triton" if on_gpu and not _why_not_triton(student, teacher, length) else "torch"
    reason = _NOT_BUILT.get(impl) or _why_not_triton(student, teacher, length)
    if reason:
        raise RuntimeError(f"impl={impl!r} cannot run here: {reason}")
    return impl


def _why_not_triton(student: Tensor, teacher: Tensor, length: int) -> str | None:
    if accumulation_dtype(student, teacher) == torch.float64:
        return "Triton computes in float32, got float64 input; use impl='torch'"
    if length > TRITON_MAX_LENGTH:
        return f"rows of {length} elements are longer than {TRITON_MAX_LENGTH}; use impl='torch'"
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed; run `pip install triton`"
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    if student.device.type != "cuda" and not interpreted:
        return f"Triton needs a GPU, the tensors are on {student.device}; use impl='torch'"
    return None


def forward(impl: str, *args) -> tuple[Tensor, Tensor, Tensor]:
    """group, coef, terms of `_closed_form.forward`, by the named implementation."""
    if impl == "triton":
        return triton_forward(*args)
    return (torch_forward if _is_traced(args[0]) else _closed_form.forward)(*args)


def backward(impl: str, *args) -> Tensor:
    """The gradient of `_closed_form.backward`, by the named implementation."""
    if impl == "triton":
        return triton_backward(*args)
    student = args[0]
    differentiated = torch.is_grad_enabled() and student.requires_grad  # to be refused by the op
    op = torch_backward if differentiated or _is_traced(student) else _closed_form.backward
    return op(*args)


def _is_traced(x: Tensor) -> bool:
    """Whether only the opaque op will do: a compiler or a fake tensor looks on.

    Otherwise the plain function saves what the op costs to call.
    """
    return torch.compiler.is_compiling() or type(x) not in (Tensor, torch.nn.Parameter)


torch_forward = torch.library.custom_op(
    "liftplace::torch_forward", _closed_form.forward, mutates_args=()
)
torch_backward = torch.library.custom_op(
    "liftplace::torch_backward", _closed_form.backward, mutates_args=()
)


@torch.library.custom_op("liftplace::triton_forward", mutates_args=())
def triton_forward(
    student: Tensor,
    teacher: Tensor,
    weight: Tensor | None,
    fixed: float | None,
    group_size: int,
    eps: float,
    squared: bool,
    with_coarse: bool,
    with_fine: bool,
    scale: int,
    with_groups: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    from liftplace.kernels.combine import combine
    from liftplace.kernels.lift import lift_fwd
    from liftplace.kernels.place import place_fwd

    if group_size >= student.shape[1]:
        group = student.new_empty(0, dtype=torch.int16)
        coef, partial = lift_fwd(student, teacher, eps=eps, squared=squared)
    else:
        group, coef, partial = place_fwd(
            student, teacher, group_size=group_size, eps=eps, squared=squared,
            with_groups=with_groups,
        )  # fmt: skip
    terms = combine(
        partial, count=student.numel(), weight=weight, fixed=fixed, scale=scale,
        with_coarse=with_coarse, with_fine=with_fine,
    )  # fmt: skip
    return group, coef, terms


@torch.library.custom_op("liftplace::triton_backward", mutates_args=())
def triton_backward(
    student: Tensor,
    teacher: Tensor,
    group: Tensor,
    coef: Tensor,
    terms: Tensor,
    grad_out: Tensor,
    scale: int,
    with_coarse: bool,
    with_fine: bool,
) -> Tensor:
    from liftplace.kernels.lift import lift_bwd
    from liftplace.kernels.place import place_bwd

    options = {"scale": scale, "with_coarse": with_coarse, "with_fine": with_fine}
    if coef.shape[2] == 1:
        return lift_bwd(student, teacher, coef, terms, grad_out, **options)
    return place_bwd(student, teacher, group, coef, terms, grad_out, **options)


def _fake_forward(student, teacher, weight, fixed, group_size, eps, squared, with_coarse,
                  with_fine, scale, with_groups):  # fmt: skip
    rows, n = student.shape
    groups = -(-n // group_size)
    dtype = accumulation_dtype(student, teacher)
    shape = _closed_form.group_shape(rows, n, groups, with_groups)
    return (
        student.new_empty(shape, dtype=_closed_form.group_dtype(groups)),
        student.new_empty((6, rows, groups), dtype=dtype),
        student.new_empty((5,), dtype=dtype),
    )


def _fake_backward(student, teacher, group, coef, terms, grad_out, scale, with_coarse, with_fine):
    return torch.empty_like(student)


def _refuse_double_backward(ctx, *grads):
    raise RuntimeError(
        "lift_loss and place_loss have no double backward: pass impl='reference', whose gradient "
        "is an ordinary autograd graph"
    )


for _op in (torch_forward, triton_forward):
    _op.register_fake(_fake_forward)
for _op in (torch_backward, triton_backward):
    _op.register_fake(_fake_backward)
    _op.register_autograd(_refuse_double_backward)
