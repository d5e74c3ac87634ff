"""Compile every Triton kernel ahead of time, without a GPU, and tabulate what each one costs.

    python -m benchmarks compile [--out benchmarks/results]

The launchers of `liftplace.kernels` run for real on a driver that compiles for a chosen
architecture and launches nothing, so that kernels, argument specialisation and launch choices are
those of a GPU run. Registers, stack and instructions are read from the machine code with the tools
that come with Triton.
"""

import csv
import itertools
import multiprocessing
import os
import re
import struct
import subprocess
import tempfile
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, astuple, dataclass, fields
from pathlib import Path

import torch
import triton
from tqdm import tqdm
from triton.backends.compiler import GPUTarget
from triton.backends.driver import DriverBase

from liftplace.kernels.combine import combine
from liftplace.kernels.lift import lift_bwd, lift_fwd
from liftplace.kernels.place import place_bwd, place_fwd

# Shared memory one program may use, bytes (CUDA C++ programming guide, compute capabilities).
ARCHES = {80: 163 * 1024, 90: 227 * 1024, 100: 227 * 1024}


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
    Problem(1, 3, 2),
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
    triton: str
    registers: int
    stack: int
    shared: int
    instructions: int


class CompileOnlyDriver(DriverBase):
    """A Triton driver for `arch` that hands every loaded kernel to `seen` and launches nothing.

    Triton's base class demands two methods that only launching and timing would call; they refuse.
    """

    def __init__(self, arch: int, seen):
        self.arch = arch
        self.seen = seen
        self.utils = self  # Triton asks `driver.utils` for the two methods at the end
        self._loading = None

    @classmethod
    def is_active(cls) -> bool:
        return True

    def get_current_device(self) -> int:
        return self.arch  # Triton caches kernels by device

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self.arch, 32)

    def get_active_torch_device(self) -> torch.device:
        return torch.device("cpu")

    def get_benchmarker(self):
        raise NotImplementedError("nothing runs on this driver")

    def map_python_to_cpp_type(self, ty: str) -> str:
        raise NotImplementedError("nothing is launched on this driver")

    def launcher_cls(self, source, metadata):
        self._loading = source, metadata
        return lambda *args: None

    def get_device_properties(self, device: int) -> dict[str, int]:
        return {"max_shared_mem": ARCHES[self.arch]}

    def load_binary(self, name: str, cubin: bytes, shared: int, device: int):
        self.seen(*self._loading, cubin)
        return cubin, None, 0, 0, 1024  # module, function, registers, spills, most threads

    def unload_module(self, module) -> None:
        pass


def compile_problem(arch: int, problem: Problem) -> list[Row]:
    """Rows of all kernels that `problem` launches on `arch`."""
    rows = []

    def seen(source, metadata, cubin):
        rows.append(
            Row(
                metadata.name,
                _describe(source, metadata.num_warps),
                f"sm_{arch}",
                triton.__version__,
                *_registers_and_stack(cubin),
                metadata.shared,
                _instructions(cubin),
            )
        )

    triton.runtime.driver.set_active(CompileOnlyDriver(arch, seen))
    _call(problem)
    return rows


def _call(problem: Problem) -> None:
    student = torch.empty(problem.rows, problem.n, dtype=problem.student)
    teacher = torch.empty(problem.rows, problem.n, dtype=problem.teacher)
    scalar = torch.empty(())
    fit = {"eps": 1e-7, "squared": problem.squared}
    coef, partial = lift_fwd(student, teacher, **fit)
    group, group_coef, group_partial = place_fwd(
        student, teacher, group_size=problem.group_size, with_groups=True, **fit
    )
    weights, terms = [(None, None)], [(True, True)]
    if problem.variants:
        place_fwd(student, teacher, group_size=problem.group_size, with_groups=False, **fit)
        weights += [(None, 0.5), (scalar, None)]
        terms += [(True, False), (False, True)]
    for (weight, fixed), (coarse, fine) in itertools.product(weights, terms):
        wanted = {"scale": 1.0, "with_coarse": coarse, "with_fine": fine}
        given = {"count": student.numel(), "weight": weight, "fixed": fixed}
        values = combine(partial, **given, **wanted)
        combine(group_partial, **given, **wanted)
        lift_bwd(student, teacher, coef, values, scalar, **wanted)
        place_bwd(student, teacher, group, group_coef, values, scalar, **wanted)


def _describe(source, warps: int) -> str:
    """Types of the pointers, constants, sizes known to be multiples of 16, warps."""
    names, types = source.fn.arg_names, list(source.signature.values())
    constants = [f"{names[i]}={value}" for (i,), value in source.constants.items()]
    aligned = [names[i] for (i,), found in source.attrs.items() if found and types[i][0] != "*"]
    return "; ".join(
        [
            " ".join(t[1:] for t in types if t[0] == "*"),
            " ".join(constants),
            *([f"16 divides {' '.join(aligned)}"] if aligned else []),
            f"{warps} warps",
        ]
    )


def _registers_and_stack(cubin: bytes) -> tuple[int, int]:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [triton.knobs.nvidia.cuobjdump.path, "--dump-resource-usage", file.name]
        text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    usage = re.search(r"REG:(\d+) STACK:(\d+)", text)
    return int(usage[1]), int(usage[2])


def _instructions(cubin: bytes) -> int:
    """Machine instructions in the ELF sections .text.*, 16 bytes each, without NOPs (padding)."""
    (table,) = struct.unpack_from("<Q", cubin, 0x28)
    entry, sections, names = struct.unpack_from("<HHH", cubin, 0x3A)
    headers = [struct.unpack_from("<IIQQQQ", cubin, table + entry * i) for i in range(sections)]
    count = 0
    for name, _, _, _, offset, size in headers:
        if cubin[headers[names][4] + name :].startswith(b".text."):
            words = range(offset, offset + size, 16)
            count += sum(
                struct.unpack_from("<H", cubin, word)[0] & 0xFFF != 0x918 for word in words
            )
    return count


def compile_all(arches=tuple(ARCHES), problems=tuple(PROBLEMS)) -> list[Row]:
    """Rows of every problem on every architecture, sorted, each kernel once."""
    if os.environ.get("TRITON_INTERPRET") == "1":
        raise RuntimeError("TRITON_INTERPRET=1 leaves nothing to compile: unset it")
    rows = set()
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(os.cpu_count(), mp_context=context) as pool:
        # Long rows compile slowest: they go first.
        jobs = sorted(itertools.product(arches, problems), key=lambda job: -job[1].n)
        futures = [pool.submit(compile_problem, *job) for job in jobs]
        for future in tqdm(as_completed(futures), total=len(futures), desc="compile"):
            rows.update(future.result())
    return sorted(rows, key=astuple)


def write_rows(rows: list[Row], path: Path | str) -> None:
    """Write the rows as CSV."""
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Row)])
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)


def main(out_dir: Path | str) -> None:
    """Print the table and write it to `out_dir`/compile_triton<version>.csv."""
    rows = compile_all()
    path = Path(out_dir) / f"compile_triton{triton.__version__}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_rows(rows, path)
    for row in rows:
        print(
            f"{row.kernel:22} {row.arch:6} {row.registers:3} registers {row.stack:3} stack "
            f"{row.shared:6} shared {row.instructions:6} instructions  {row.launch}"
        )
    spilled = sum(row.stack > 0 for row in rows)
    print(f"{len(rows)} kernels, {spilled} with spills; written to {path}")
