"""impl="native": the contract of `liftplace._contract` in C++, called through ctypes."""

import ctypes
from ctypes import c_char_p, c_int64
from pathlib import Path

import torch
from torch import Tensor

from liftplace._c_interface import C_DTYPES, argument_types, c_pointer, c_tensor
from liftplace._contract import Fitted, LossSum, Options, new_fitted

from .sources import FOLDER, SUFFIX, digest

# Elements worth a thread of their own: starting one takes as long as some thousands of elements.
_FORWARD_GRAIN, _BACKWARD_GRAIN = 1 << 14, 1 << 16
_SIGNATURES = {  # result and arguments
    "liftplace_digest": (c_char_p, ""),
    "liftplace_forward_scratch": (c_int64, "lll ii"),
    "liftplace_forward": (None, "tt lll fi pfi iif ppppp i"),
    "liftplace_backward_scratch": (c_int64, "li"),
    "liftplace_backward": (None, "tt lll pppp fii pp i"),
}
LIBRARY = FOLDER / f"_native{SUFFIX}"


def open_library(path: Path) -> tuple[ctypes.CDLL | None, str | None]:
    """The compiled op at `path`, or None and the reason; then `auto` uses PyTorch."""
    if not path.is_file():
        return None, (
            "its extension was not built, because the installation found no C++ compiler; "
            "install one and reinstall liftplace"
        )
    stale = "its extension was built from other sources: run `pip install -e .` again"
    try:
        library = ctypes.CDLL(str(path))
        for name, (result, arguments) in _SIGNATURES.items():
            function = getattr(library, name)
            function.restype, function.argtypes = result, argument_types(arguments)
    except OSError as error:
        return None, f"its extension does not load ({error}); reinstall liftplace"
    except AttributeError:  # a function that it lacks
        return None, stale
    sources = digest()
    same = sources is None or library.liftplace_digest() == sources.encode()
    return (library, None) if same else (None, stale)


_library, not_built = open_library(LIBRARY)


def is_built() -> bool:
    """Whether the installation compiled the op, from the sources that are there."""
    return not_built is None


def unsupported_reason(student: Tensor, teacher: Tensor, length: int) -> str | None:
    """Why the C++ op cannot run on rows of `length` elements here; None if it can."""
    if student.device.type != "cpu":
        return f"it runs on a CPU, the tensors are on {student.device}; use impl='auto'"
    if torch.float64 in (student.dtype, teacher.dtype):
        return "it computes in float32, got float64 input; use impl='torch'"
    if length >= 1 << 31:
        return f"rows of {length} elements need 64-bit ranks; use impl='torch'"
    return None if is_built() else f"{not_built}, or use impl='torch'"


def _threads(student: Tensor, grain: int) -> int:
    return min(torch.get_num_threads(), student.shape[0], -(-student.numel() // grain))


def forward(
    student: Tensor, teacher: Tensor, fine_weight: Tensor | None, options: Options
) -> tuple[Tensor, Fitted]:
    """The loss and what was fitted; see `liftplace._contract`."""
    rows, n = student.shape
    group_size, eps, squared, fixed_weight, loss_sum, _ = options
    group, coef, stats = fitted = new_fitted(student, teacher, options)
    loss = coef.new_empty(())
    if fine_weight is not None:
        fine_weight = fine_weight.to(torch.float32)
    threads = _threads(student, _FORWARD_GRAIN)
    dtype = C_DTYPES[student.dtype]
    scratch = _library.liftplace_forward_scratch(rows, n, group_size, dtype, threads)
    scratch = student.new_empty(scratch, dtype=torch.uint8)
    inputs = (*c_tensor(student), *c_tensor(teacher), rows, n, group_size)
    weight = (c_pointer(fine_weight), fixed_weight or 0.0, fixed_weight is None)
    outputs = (c_pointer(group if group.numel() else None), *map(c_pointer, (coef, loss, stats)))
    _library.liftplace_forward(
        *inputs, eps, squared, *weight, *loss_sum, *outputs, c_pointer(scratch), threads
    )
    return loss, fitted


def backward(
    student: Tensor, teacher: Tensor, fitted: Fitted, grad_out: Tensor, loss_sum: LossSum
) -> Tensor:
    """d loss / d student; see `liftplace._contract`."""
    rows, n = student.shape
    groups = fitted.coef.shape[2]
    grad = torch.empty_like(student)
    grad_out = grad_out.to(torch.float32)
    threads = _threads(student, _BACKWARD_GRAIN)
    scratch = _library.liftplace_backward_scratch(groups, threads)
    scratch = student.new_empty(scratch, dtype=torch.uint8)
    inputs = (*c_tensor(student), *c_tensor(teacher), rows, n, groups)
    saved = map(c_pointer, (*fitted, grad_out))
    with_coarse, with_fine, scale = loss_sum
    outputs = map(c_pointer, (grad, scratch))
    _library.liftplace_backward(*inputs, *saved, scale, with_coarse, with_fine, *outputs, threads)
    return grad
