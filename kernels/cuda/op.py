"""impl="cuda": forward and backward by the CUDA C++ kernels, called through ctypes.

Every buffer is torch's, so that its allocator, CUDA graphs and memory counts see it, and every
launch goes to torch's current stream. Nothing waits for the device.
"""

import ctypes
from ctypes import c_char_p
from functools import cache

import torch
from torch import Tensor

from liftplace._c_interface import argument_types, c_pointer, c_tensor
from liftplace._contract import Fitted, LossSum, Options, new_fitted

from . import build
from .launch import (
    MAX_ROW,
    backward_launch,
    combine_launch,
    lift_launch,
    place_launch,
)

_SIGNATURES = {
    "liftplace_place": "tt ppp ll iiiiiii fii lii p",
    "liftplace_lift": "tt ppp lll i fi ii p",
    "liftplace_combine": "pppp ll iff ii ii p",
    "liftplace_backward": "tt ppp t p lllll ii fii lii p",
}


def unsupported_reason(student: Tensor, teacher: Tensor, length: int) -> str | None:
    """Why the kernels cannot run on these tensors, or None. Builds nothing."""
    if torch.float64 in (student.dtype, teacher.dtype):
        return "the CUDA kernels compute in float32, got float64 input; use impl='torch'"
    if student.device.type != "cuda" or torch.version.cuda is None:
        return f"it needs an NVIDIA GPU, the tensors are on {student.device}; use impl='torch'"
    if length > MAX_ROW:
        return f"rows of {length} elements are longer than {MAX_ROW}; use impl='torch'"
    return _device_reason(student.device)


def _device_reason(device: torch.device) -> str | None:
    """Why no kernel can run on this GPU, or None."""
    if torch.compiler.is_compiling():
        return None  # a trace cannot look for files; the op says why when it runs
    if _arch(device) < build.MIN_ARCH:
        return f"it needs compute capability 8.0, the GPU has {_arch(device) / 10}"
    reason = build.unsupported_reason()
    return f"{reason}, or use impl='triton'" if reason else None


def forward(
    student: Tensor, teacher: Tensor, fine_weight: Tensor | None, options: Options
) -> tuple[Tensor, Fitted]:
    """The loss and what was fitted; see `liftplace._contract`."""
    fitted = new_fitted(student, teacher, options)
    loss = fitted.coef.new_empty(())
    if fine_weight is not None:
        fine_weight = fine_weight.to(torch.float32)
    fixed_weight, loss_sum = options.fixed_weight, options.loss_sum
    adaptive = fine_weight is None and fixed_weight is None
    with torch.cuda.device_of(student):
        fit = _lift if fitted.coef.shape[2] == 1 else _place
        partial = fit(student, teacher, fitted, options)
        launch = combine_launch(partial.shape[0])
        tensors = map(c_pointer, (partial, fine_weight, loss, fitted.stats))
        sizes = (partial.shape[0], student.numel())
        weight = (adaptive, fixed_weight or 0.0, loss_sum.scale)
        wanted = (loss_sum.with_coarse, loss_sum.with_fine)
        grid = (launch.threads, launch.shared)
        _call("liftplace_combine", student.device, *tensors, *sizes, *weight, *wanted, *grid)
    return loss, fitted


def backward(
    student: Tensor, teacher: Tensor, fitted: Fitted, grad_out: Tensor, loss_sum: LossSum
) -> Tensor:
    """d loss / d student; see `liftplace._contract`."""
    group, coef, stats = fitted
    rows, n = student.shape
    groups = coef.shape[2]
    grad = torch.empty_like(student)
    launch = backward_launch(rows, n, groups)
    grad_out = grad_out.to(torch.float32)
    inputs = (*c_tensor(student), *c_tensor(teacher))
    saved = map(c_pointer, (group if groups > 1 else None, coef, stats))
    sizes = (rows, n, groups, launch.tiles, launch.tile)
    layout = (group.dtype == torch.int32, _aligned(student, teacher))
    wanted = (loss_sum.scale / student.numel(), loss_sum.with_coarse, loss_sum.with_fine)
    grid = (launch.blocks, launch.threads, launch.shared)
    arguments = (*inputs, *saved, *c_tensor(grad_out), c_pointer(grad), *sizes, *layout, *wanted)
    with torch.cuda.device_of(student):
        _call("liftplace_backward", student.device, *arguments, *grid)
    return grad


def _lift(student: Tensor, teacher: Tensor, fitted: Fitted, options: Options) -> Tensor:
    """Fill coef; return the partial sums (blocks, 3)."""
    rows, n = student.shape
    launch = lift_launch(n)
    coef = fitted.coef
    partial = coef.new_empty((rows, 3))
    moments = coef.new_empty((rows, launch.chunks, 5)) if launch.chunks > 1 else None
    inputs = (*c_tensor(student), *c_tensor(teacher))
    outputs = map(c_pointer, (coef, partial, moments))
    sizes = (rows, n, launch.chunks, _aligned(student, teacher))
    fit = (options.eps, options.squared)
    grid = (launch.threads, launch.shared)
    _call("liftplace_lift", student.device, *inputs, *outputs, *sizes, *fit, *grid)
    return partial


def _place(student: Tensor, teacher: Tensor, fitted: Fitted, options: Options) -> Tensor:
    """Fill group and coef; return the partial sums (blocks, 3)."""
    rows, n = student.shape
    launch = place_launch(rows, n, options.group_size, _max_shared(student.device))
    group, coef = fitted.group, fitted.coef
    partial = coef.new_empty((launch.blocks, 3))
    inputs = (*c_tensor(student), *c_tensor(teacher))
    outputs = map(c_pointer, (group if options.with_groups else None, coef, partial))
    sizes = (rows, n, options.group_size, launch.groups)
    parts = (launch.parts, launch.part_groups, launch.slack)
    layout = (group.dtype == torch.int32, _aligned(student, teacher))
    fit = (options.eps, options.squared)
    grid = (launch.kind, launch.blocks, launch.threads, launch.shared)
    arguments = (*inputs, *outputs, *sizes, *parts, *layout, *fit)
    _call("liftplace_place", student.device, *arguments, *grid)
    return partial


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
        getattr(library, name).argtypes = argument_types(types)
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
