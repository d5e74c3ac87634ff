"""python -m benchmarks compile: what the GPU kernels cost, read from their code without a GPU.

The launchers of `liftplace.kernels.fused` run for real on a driver that compiles for a chosen
architecture and launches nothing, so that kernels, argument specialisation and launch choices are
those of a GPU run. Registers, stack and instructions are read from the machine code with the tools
that come with Triton.

For PLACE's forward at four row lengths also the issue cycles of a row: the instructions that its
warps execute over the four that a multiprocessor issues a cycle. That is what the row costs a
multiprocessor if nothing ever waits: an estimate from below.
"""

import argparse
import itertools
import multiprocessing
import os
import sys
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import astuple, fields
from functools import cache
from pathlib import Path

import torch
import triton

from benchmarks import compile_cuda, flags, results, sass
from benchmarks.compile_only import MAX_SHARED, CompileOnlyDriver, Launch
from benchmarks.compile_rows import PROBLEMS, Issue, Problem, Row
from liftplace._contract import Fitted, LossSum, Options
from liftplace.kernels.fused.backward import backward
from liftplace.kernels.fused.combine import combine
from liftplace.kernels.fused.lift import lift_fwd
from liftplace.kernels.fused.place import place_fwd

COMPILER = f"triton {triton.__version__}"


@cache
def _driver(arch: int) -> CompileOnlyDriver:
    """One for each architecture, because Triton keeps what it has loaded."""
    return CompileOnlyDriver(arch)


def _launched(arch: int, call, *args, **options) -> list[Launch]:
    driver = _driver(arch)
    triton.runtime.driver.set_active(driver)
    driver.launches = []
    call(*args, **options)
    return driver.launches


@cache
def _kernel(cubin: bytes) -> sass.Kernel:
    (kernel,) = sass.kernels(cubin)
    return kernel


@cache
def _listing(cubin: bytes) -> sass.Listing:
    (listing,) = sass.listings(cubin)
    return listing


def compile_problem(arch: int, problem: Problem) -> list[Row]:
    """Rows of all kernels that `problem` launches on `arch`."""
    rows = []
    for launch in _launched(arch, _call, problem):
        kernel, metadata = _kernel(launch.cubin), launch.metadata
        constants = _describe(launch.source, metadata.num_warps)
        memory = kernel.registers, kernel.stack, metadata.shared
        where = f"sm_{arch}", COMPILER
        rows.append(Row(metadata.name, constants, *where, *memory, kernel.instructions))
    return rows


def issue(arch: int, problem: Problem) -> list[Issue]:
    """What PLACE's forward issues for `problem` on `arch`, launch by launch."""
    launches = _launched(arch, place_fwd, *_inputs(problem), Options(problem.group_size))
    size = problem.rows, problem.n, problem.group_size
    rows = []
    for launch in launches:
        constants, warps = launch.constants, launch.metadata.num_warps
        trips, loads = constants.get("TRIPS", 1), None
        if launch.metadata.name == "_merge_runs_kernel":
            trips = constants["LOG_RUN"] + 1
            loads = constants["FAN_IN"] * constants["BLOCK"] // (32 * warps)
        executed = _listing(launch.cubin).executed(trips, loads)
        kernel = launch.metadata.name, launch.programs, warps, executed
        rows.append(Issue(f"sm_{arch}", COMPILER, *size, *kernel))
    return rows


def _inputs(problem: Problem) -> tuple[torch.Tensor, torch.Tensor]:
    shape = problem.rows, problem.n
    return (torch.empty(shape, dtype=problem.student), torch.empty(shape, dtype=problem.teacher))


def _call(problem: Problem) -> None:
    student, teacher = _inputs(problem)
    scalar = torch.empty(())
    options = Options(problem.group_size, squared=problem.squared)
    lift, place = (fit(student, teacher, options) for fit in (lift_fwd, place_fwd))
    weights, terms = [(None, None)], [(True, True)]
    if problem.variants:
        place_fwd(student, teacher, options._replace(with_groups=False))
        weights += [(None, 0.5), (scalar, None)]
        terms += [(True, False), (False, True)]
    for (fine_weight, fixed_weight), wanted in itertools.product(weights, terms):
        loss_sum = LossSum(*wanted)
        options = options._replace(fixed_weight=fixed_weight, loss_sum=loss_sum)
        fitted = []
        for group, coef, partial in (lift, place):
            _, stats = combine(partial, student.numel(), fine_weight, options)
            fitted.append(Fitted(group, coef, stats))
        for each in fitted:
            backward(student, teacher, each, scalar, loss_sum)


def _describe(source, warps: int) -> str:
    """Types of the pointers, constants, sizes known to be multiples of 16, warps."""
    names, types = source.fn.arg_names, list(source.signature.values())
    constants = [f"{names[i]}={value}" for (i,), value in source.constants.items()]
    aligned = [names[i] for (i,), found in source.attrs.items() if found and types[i][0] != "*"]
    parts = [" ".join(t[1:] for t in types if t[0] == "*"), " ".join(constants)]
    if aligned:
        parts.append(f"16 divides {' '.join(aligned)}")
    return "; ".join([*parts, f"{warps} warps"])


def compile_all(arches=tuple(MAX_SHARED), problems=tuple(PROBLEMS)) -> list[Row]:
    """Rows of every problem on every architecture, sorted, each kernel once."""
    # Long rows compile slowest: they go first.
    jobs = sorted(itertools.product(arches, problems), key=lambda job: -job[1].n)
    return sorted(set(_in_processes(compile_problem, jobs)), key=astuple)


def issue_all(arches=tuple(MAX_SHARED), problems=tuple(PROBLEMS[:4])) -> list[Issue]:
    """Issue rows of the four lengths on every architecture."""
    rows = _in_processes(issue, list(itertools.product(arches, problems)))
    return sorted(rows, key=lambda row: (row.arch, row.n))


def _in_processes(function, jobs: list[tuple]) -> list:
    if os.environ.get("TRITON_INTERPRET") == "1":
        raise RuntimeError("TRITON_INTERPRET=1 leaves nothing to compile: unset it")
    rows = []
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(os.cpu_count(), mp_context=context) as pool:
        futures = [pool.submit(function, *job) for job in jobs]
        for number, future in enumerate(as_completed(futures), 1):
            rows += future.result()
            print(f"{function.__name__}: {number} of {len(jobs)}", file=sys.stderr)
    return rows


def add_flags(parser: argparse.ArgumentParser) -> None:
    both = ["triton", "cuda"]
    parser.add_argument("--out", type=Path, default=flags.RESULTS)
    parser.add_argument("--kernels", nargs="+", choices=both, default=both, help="cuda needs nvcc")


def main(options: argparse.Namespace) -> int:
    """Write compile_<compiler>.csv and issue_<compiler>.csv for Triton and, where it is, nvcc."""
    tables = {}
    if "triton" in options.kernels:
        tables[COMPILER] = compile_all(), issue_all()
    nvcc = compile_cuda.compiler()
    if "cuda" in options.kernels and nvcc:
        found = [compile_cuda.compile_arch(arch, tuple(PROBLEMS[:4])) for arch in MAX_SHARED]
        tables[nvcc] = tuple(list(itertools.chain(*parts)) for parts in zip(*found, strict=True))
    for compiler, (rows, issued) in tables.items():
        name = compiler.replace(" ", "")
        write_rows(Row, rows, options.out / f"compile_{name}.csv")
        write_rows(Issue, issued, options.out / f"issue_{name}.csv")
        for row in rows:
            print(
                f"{row.kernel:22} {row.arch:6} {row.registers:3} registers {row.stack:3} stack "
                f"{row.instructions:6} instructions  {row.launch}"
            )
        for row in issued:
            print(f"{row.arch} rows of {row.n}: {row.kernel}, {row.cycles:.0f} issue cycles a row")
        spilled = sum(row.stack > 0 for row in rows)
        print(f"{compiler}: {len(rows)} kernels, {spilled} with spills; written to {options.out}")
    if "cuda" in options.kernels and not nvcc:
        print("not compiled: the CUDA C++ kernels, because there is no nvcc here")
    return 0


def write_rows(kind: type, rows: list, path: Path) -> None:
    """Write rows of one dataclass as CSV."""
    columns = [field.name for field in fields(kind)]
    lines = [["" if value is None else value for value in astuple(row)] for row in rows]
    results.write(path, columns, [dict(zip(columns, line, strict=True)) for line in lines])
