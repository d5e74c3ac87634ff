"""impl="cuda": forward and backward by the CUDA C++ kernels, called through ctypes.

Every buffer is torch's, so that its allocator, CUDA graphs and memory counts see it, and every
launch goes to torch's current stream. Nothing waits for the device.
"""

import ctypes
from ctypes import c_char_p, c_float, c_int, c_int64, c_void_p
from functools import cache

import torch
from torch import Tensor

from . import build
from .launch import (
    MAX_ROW,
    backward_launch,
    ceil_div,
    combine_launch,
    lift_launch,
    place_launch,
)

_DTYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}
_TENSOR = (c_void_p, c_int)  # data and dtype
_SIGNATURES = {
    "liftplace_place": (
        *_TENSOR, *_TENSOR, *[c_void_p] * 3, *[c_int64] * 2, *[c_int] * 7, c_float, c_int, c_int,
        c_int64, c_int, c_int, c_void_p,
    ),
    "liftplace_lift": (
        *_TENSOR, *_TENSOR, *[c_void_p] * 3, *[c_int64] * 3, c_int, c_float, *[c_int] * 3, c_void_p
    ),
    "liftplace_combine": (
        *[c_void_p] * 4, *[c_int64] * 2, c_int, c_float, c_float, *[c_int] * 4, c_void_p
    ),
    "liftplace_backward": (
        *_TENSOR, *_TENSOR, *[c_void_p] * 3, *_TENSOR, c_void_p, *[c_int64] * 5, c_int, c_int,
        c_float, c_int, c_int, c_int64, c_int, c_int, c_void_p,
    ),
}  # fmt: skip


def why_not(student: Tensor, teacher: Tensor, length: int) -> str | None:
    """Why the kernels cannot run on these tensors, or None. Builds nothing."""
    if torch.float64 in (student.dtype, teacher.dtype):
        return "the CUDA kernels compute in float32, got float64 input; use impl='torch'"
    if student.device.type != "cuda" or torch.version.cuda is None:
        return f"it needs an NVIDIA GPU, the tensors are on {student.device}; use impl='torch'"
    if length > MAX_ROW:
        return f"rows of {length} elements are longer than {MAX_ROW}; use impl='torch'"
    return _why_not_on(student.device)


def _why_not_on(device: torch.device) -> str | None:
    """Why no kernel can run on this GPU, or None."""
    if torch.compiler.is_compiling():
        return None  # a trace cannot look for files; the op says why when it runs
    if _arch(device) < build.MIN_ARCH:
        return f"it needs compute capability 8.0, the GPU has {_arch(device) / 10}"
    reason = build.why_not()
    return f"{reason}, or use impl='triton'" if reason else None


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
    coef = student.new_empty((6, rows, ceil_div(n, group_size)), dtype=torch.float32)
    loss, terms = coef.new_empty(()), coef.new_empty(4)
    if weight is not None:
        weight = weight.to(torch.float32)
    with torch.cuda.device_of(student):
        if group_size >= n:
            group = student.new_empty(0, dtype=torch.int16)
            partial = _lift(student, teacher, coef, eps, squared)
        else:
            group, partial = _place(student, teacher, coef, group_size, eps, squared, with_groups)
        launch = combine_launch(partial.shape[0])
        _call(
            "liftplace_combine", student.device, partial.data_ptr(), _pointer(weight),
            loss.data_ptr(), terms.data_ptr(), partial.shape[0], student.numel(),
            weight is None and fixed is None, fixed or 0.0, scale, with_coarse, with_fine,
            launch.threads, launch.shared,
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
    """d loss / d student, (rows, n) in its dtype; the same as `liftplace._closed_form.backward`."""
    rows, n = student.shape
    groups = coef.shape[2]
    grad = torch.empty_like(student)
    launch = backward_launch(rows, n, groups)
    numbers = group if groups > 1 else None
    grad_out = grad_out.to(torch.float32)
    with torch.cuda.device_of(student):
        _call(
            "liftplace_backward", student.device, *_data(student), *_data(teacher),
            _pointer(numbers), coef.data_ptr(), terms.data_ptr(), *_data(grad_out),
            grad.data_ptr(), rows, n, groups, launch.tiles, launch.tile,
            group.dtype == torch.int32, _aligned(student, teacher), scale / student.numel(),
            with_coarse, with_fine, launch.blocks, launch.threads, launch.shared,
        )  # fmt: skip
    return grad


def _lift(student, teacher, coef, eps, squared) -> Tensor:
    """Fill coef; return the partial sums (blocks, 3)."""
    rows, n = student.shape
    launch = lift_launch(n)
    partial = coef.new_empty((rows, 3))
    moments = coef.new_empty((rows, launch.chunks, 5)) if launch.chunks > 1 else None
    _call(
        "liftplace_lift", student.device, *_data(student), *_data(teacher), coef.data_ptr(),
        partial.data_ptr(), _pointer(moments), rows, n, launch.chunks,
        _aligned(student, teacher), eps, squared, launch.threads, launch.shared,
    )  # fmt: skip
    return partial


def _place(student, teacher, coef, group_size, eps, squared, with_groups) -> tuple[Tensor, Tensor]:
    """Fill coef; return the group numbers and the partial sums (blocks, 3)."""
    rows, n = student.shape
    launch = place_launch(rows, n, group_size, _max_shared(student.device))
    group = student.new_empty(
        (rows, n) if with_groups else (0,), dtype=torch.int32 if launch.wide else torch.int16
    )
    partial = coef.new_empty((launch.blocks, 3))
    _call(
        "liftplace_place", student.device, *_data(student), *_data(teacher),
        _pointer(group if with_groups else None), coef.data_ptr(), partial.data_ptr(), rows, n,
        group_size, launch.groups, launch.parts, launch.part_groups, launch.slack, launch.wide,
        _aligned(student, teacher), eps, squared, launch.kind, launch.blocks, launch.threads,
        launch.shared,
    )  # fmt: skip
    return group, partial


def _call(name: str, device: torch.device, *arguments) -> None:
    """Run a launcher on the current stream of `device`, which is the current one."""
    library = _library(device)
    error = getattr(library, name)(*arguments, _stream(device))
    if error != 0:
        reason = library.liftplace_error(error).decode()
        raise RuntimeError(f"{name} failed: CUDA error {error}, {reason}")


@cache
def _library(device: torch.device) -> ctypes.CDLL:
    return declare(build.load(_arch(device)))


def declare(library: ctypes.CDLL) -> ctypes.CDLL:
    """Give the launchers their argument types."""
    library.liftplace_error.restype = c_char_p
    for name, types in _SIGNATURES.items():
        getattr(library, name).argtypes = types
    return library


def _stream(device: torch.device) -> int:
    return torch.cuda.current_stream(device).cuda_stream


@cache
def _arch(device: torch.device) -> int:
    major, minor = torch.cuda.get_device_capability(device)
    return 10 * major + minor


@cache
def _max_shared(device: torch.device) -> int:
    """Bytes of shared memory that a block may have."""
    return torch.cuda.get_device_properties(device).shared_memory_per_block_optin


def _aligned(student: Tensor, teacher: Tensor) -> bool:
    """Whether four neighbours of a row can be read at once: rows of whole quads, on 16 bytes."""
    starts = student.data_ptr() | teacher.data_ptr()
    return student.shape[1] % 4 == 0 and starts % 16 == 0


def _data(x: Tensor) -> tuple[int, int]:
    return x.data_ptr(), _DTYPES[x.dtype]


def _pointer(x: Tensor | None) -> int | None:
    return None if x is None else x.data_ptr()
