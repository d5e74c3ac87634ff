"""impl="native": the two halves of an op as `liftplace._dispatch` calls them, in C++ by ctypes."""

import ctypes
from ctypes import c_char_p, c_float, c_int, c_int64, c_void_p
from importlib.machinery import PathFinder
from pathlib import Path

import torch
from torch import Tensor

from .sources import digest

_DTYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}
# Elements worth a thread of their own: starting one takes as long as some thousands of elements.
_FORWARD_GRAIN, _BACKWARD_GRAIN = 1 << 14, 1 << 16
_SIGNATURES = {
    "liftplace_digest": (c_char_p, []),
    "liftplace_forward_scratch": (c_int64, 3 * [c_int64] + 2 * [c_int]),
    "liftplace_forward": (None, [
        c_void_p, c_int, c_void_p, c_int, c_int64, c_int64, c_int64, c_float, c_int, c_void_p,
        c_float, c_int, c_int, c_int, c_float, *5 * [c_void_p], c_int,
    ]),
    "liftplace_backward_scratch": (c_int64, [c_int64, c_int]),
    "liftplace_backward": (None, [
        c_void_p, c_int, c_void_p, c_int, c_int64, c_int64, c_int64, c_void_p, c_void_p, c_void_p,
        c_void_p, c_float, c_int, c_int, c_void_p, c_void_p, c_int,
    ]),
}  # fmt: skip
_extension = PathFinder.find_spec("_native", [str(Path(__file__).parent)])


def open_library(path: str | None) -> tuple[ctypes.CDLL | None, str | None]:
    """The compiled op at `path`, or None and why not: then `auto` does without it."""
    if path is None:
        return None, (
            "its extension was not built, because the installation found no C++ compiler; "
            "install one and reinstall liftplace"
        )
    stale = "its extension was built from other sources: run `pip install -e .` again"
    try:
        library = ctypes.CDLL(path)
        for name, (result, arguments) in _SIGNATURES.items():
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
    except OSError as error:
        return None, f"its extension does not load ({error}); reinstall liftplace"
    except AttributeError:  # a function that it lacks
        return None, stale
    sources = digest()
    same = sources is None or library.liftplace_digest() == sources.encode()
    return (library, None) if same else (None, stale)


_library, not_built = open_library(_extension.origin if _extension else None)


def is_built() -> bool:
    """Whether the installation compiled the op, from the sources that are there."""
    return not_built is None


def why_not(student: Tensor, teacher: Tensor, length: int) -> str | None:
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
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """loss, group, coef and terms of `liftplace._closed_form.forward`."""
    rows, n = student.shape
    groups = -(-n // group_size)
    with_groups = with_groups and groups > 1
    group = student.new_empty(
        (rows, n) if with_groups else 0, dtype=torch.int16 if groups <= 1 << 16 else torch.int32
    )
    coef = student.new_empty((6, rows, groups), dtype=torch.float32)
    loss, terms = coef.new_empty(()), coef.new_empty(4)
    if weight is not None:
        weight = weight.to(torch.float32)
    library, dtype = _library, _DTYPES[student.dtype]
    threads = _threads(student, _FORWARD_GRAIN)
    scratch = student.new_empty(
        library.liftplace_forward_scratch(rows, n, group_size, dtype, threads),
        dtype=torch.uint8,
    )
    library.liftplace_forward(
        student.data_ptr(), dtype, teacher.data_ptr(), _DTYPES[teacher.dtype], rows, n, group_size,
        eps, squared, None if weight is None else weight.data_ptr(), fixed or 0.0, fixed is None,
        with_coarse, with_fine, scale, group.data_ptr() if with_groups else None, coef.data_ptr(),
        loss.data_ptr(), terms.data_ptr(), scratch.data_ptr(), threads,
    )  # fmt: skip
    return loss, group, coef, terms


def backward(
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
    """The gradient of `liftplace._closed_form.backward`."""
    rows, n = student.shape
    groups = coef.shape[2]
    grad = torch.empty_like(student)
    grad_out = grad_out.to(torch.float32)
    library, threads = _library, _threads(student, _BACKWARD_GRAIN)
    scratch = student.new_empty(
        library.liftplace_backward_scratch(groups, threads), dtype=torch.uint8
    )
    library.liftplace_backward(
        student.data_ptr(), _DTYPES[student.dtype], teacher.data_ptr(), _DTYPES[teacher.dtype],
        rows, n, groups, group.data_ptr(), coef.data_ptr(), terms.data_ptr(), grad_out.data_ptr(),
        scale, with_coarse, with_fine, grad.data_ptr(), scratch.data_ptr(), threads,
    )  # fmt: skip
    return grad
