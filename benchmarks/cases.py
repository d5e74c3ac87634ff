"""What is measured: shapes, dtypes and group sizes of a device, and their inputs."""

import itertools
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

CPU_SHAPES = ((8, 3, 64, 64), (16, 4, 64, 64), (2, 3, 256, 256))
CUDA_SHAPES = (
    (64, 4, 32, 32),  # DiT, latents of 256x256
    (96, 3, 64, 64),  # CelebA
    (64, 4, 64, 64),  # SD, latents of 512x512
    (16, 16, 128, 128),  # SD3, latents of 1024x1024
    (16, 3, 256, 256),  # LSUN
    (512, 64, 64, 64),  # student and teacher take 1 GB in float32: far beyond any L2 cache
)


@dataclass(frozen=True)
class Case:
    op: str  # "place" or "lift"
    shape: tuple[int, ...]
    dtype: torch.dtype
    group_size: int | None  # None for lift
    device: str
    threads: int

    @property
    def elements(self) -> int:
        return prod(self.shape)

    @property
    def dtype_name(self) -> str:
        return str(self.dtype).removeprefix("torch.")

    @property
    def row_length(self) -> int:
        return prod(self.shape[2:])

    def floor_bytes(self, implementation: str = "") -> int:
        """What an implementation must move, by default of the op itself.

        The adaptive weight is a mean over everything, so the backward reads student and teacher
        again, as F.mse_loss does; PLACE also writes and reads an element's group number. The copy
        is of student, teacher and gradient once.
        """
        array = self.elements * self.dtype.itemsize
        if implementation == "copy":
            return 3 * array
        if self.op == "lift" or implementation.startswith("mse"):
            return 5 * array
        number = 2 if self.row_length <= self.group_size << 16 else 4
        return 5 * array + 2 * number * self.elements

    def __str__(self) -> str:
        groups = f", groups of {self.group_size}" if self.group_size else ""
        return f"{self.op} {self.shape} {self.dtype_name}{groups}, {self.threads} CPU thread(s)"


def cases(options) -> list[Case]:
    """The cases of the command line; what is not given takes the device's defaults.

    The headline comes first, all shapes of one dtype and group size, so that a run that is stopped
    early has measured something whole.
    """
    cuda = options.device == "cuda"
    shapes = options.shapes or (CUDA_SHAPES if cuda else CPU_SHAPES)
    dtypes = options.dtypes or (["float32", "bfloat16"] if cuda else ["float32"])
    group_sizes = options.group_sizes or ([16, 256] if cuda else [16])
    threads = options.threads or ([torch.get_num_threads()] if cuda else [1, 2])
    levels = itertools.product(threads, group_sizes, dtypes, options.ops, shapes)
    found = (
        Case(op, shape, getattr(torch, dtype), size if op == "place" else None, options.device, n)
        for n, size, dtype, op, shape in levels
    )
    return list(dict.fromkeys(found))  # LIFT has no groups: its cases come once


def inputs(case: Case) -> tuple[Tensor, Tensor]:
    """A student that needs a gradient and a teacher: Gaussian, their errors too.

    The student shrinks and shifts the teacher, so that no term vanishes and 0 < w < 1.
    """
    generator = torch.Generator(case.device).manual_seed(0)
    teacher = torch.randn(case.shape, generator=generator, device=case.device)
    noise = torch.randn(case.shape, generator=generator, device=case.device)
    student = noise.mul_(0.3).add_(0.9 * teacher).add_(0.05)
    return student.to(case.dtype).requires_grad_(), teacher.to(case.dtype)
