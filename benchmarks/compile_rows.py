"""What `python -m benchmarks compile` compiles, and the rows that it writes."""

from dataclasses import dataclass

import torch

SCHEDULERS = 4  # of a multiprocessor; each issues an instruction a cycle


@dataclass(frozen=True)
class Problem:
    """One call of the ops: forward and backward of LIFT and PLACE on (rows, n)."""

    rows: int
    n: int
    group_size: int
    student: torch.dtype = torch.float32
    teacher: torch.dtype = torch.float32
    squared: bool = False
    variants: bool = False  # also every form of weight and terms, and without group numbers


PROBLEMS = [
    Problem(256, 1024, 16, variants=True),  # DiT, 256 x 256 latents
    Problem(256, 4096, 16),  # SD, 512 latents; CelebA, 64 x 64
    Problem(256, 16_384, 16),  # SD3, 1024 latents
    Problem(48, 65_536, 16),  # LSUN
    Problem(256, 1024, 16, torch.bfloat16, torch.bfloat16),
    Problem(256, 4096, 16, torch.bfloat16, torch.float16),
    Problem(256, 4096, 16, torch.float16, torch.float32, squared=True),
    Problem(64, 64, 16),  # short rows share a program
    Problem(64, 256, 16),  # the demo
    Problem(1, 4, 2),
    Problem(3, 2, 1),
    Problem(8, 2048, 2),
    Problem(8, 2048, 16),
    Problem(8, 2048, 1024),
    Problem(8, 1500, 16),
    Problem(8, 1000, 100),  # a group size that is no power of two
    Problem(1, 8192, 16),  # the longest row that LIFT keeps in registers
    Problem(1, 5000, 1667),
    Problem(1, 65_536, 16),  # sixteen runs in one round
    Problem(1, 70_000, 15_000),  # groups wider than a tile
    Problem(1, 1_048_576, 15),  # several rounds; group numbers need int32
]


@dataclass(frozen=True)
class Row:
    """One compiled kernel; `stack` holds spilled registers, so 0 means none. Memory in bytes."""

    kernel: str
    launch: str
    arch: str
    compiler: str
    registers: int
    stack: int
    shared: int | None  # None: the launch decides
    instructions: int


@dataclass(frozen=True)
class Issue:
    """One launch of PLACE's forward; `executed` is a warp's instructions."""

    arch: str
    compiler: str
    rows: int
    n: int
    group_size: int
    kernel: str
    programs: int
    warps: int
    executed: int

    @property
    def cycles(self) -> float:
        """Issue cycles a row."""
        return self.programs * self.warps * self.executed / SCHEDULERS / self.rows
