"""python -m benchmarks sweep: time what the launch choices choose between.

Two kinds of rows. "implementation": forward and backward of each implementation, which `auto`
chooses between. "launch", on CUDA: the forward kernels under each launch that
`liftplace.kernels.fused.launch` could return, in a CUDA graph. `chosen` marks today's choice.
"""

import argparse
import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import astuple, dataclass, fields, replace
from functools import partial
from pathlib import Path

import torch

from benchmarks import flags, results, timing
from benchmarks.cases import Case, inputs
from benchmarks.environment import environment
from benchmarks.implementations import implementations
from benchmarks.red import EVERYTHING, RedList
from liftplace import _dispatch

COLUMNS = (
    *results.WHERE,
    *"kind op rows n dtype group_size name mode chosen repeats ms_p20 ms_p50 ms_p80".split(),
    "over_fastest",
)
_CASE = ("device", "threads", "op", "rows", "n", "dtype", "group_size")
OURS = tuple(name for name in _dispatch.IMPLEMENTATIONS if name not in ("auto", "reference"))
CPU_SIZES = ((8, 64), (24, 256), (24, 1024), (24, 4096), (256, 4096), (6, 65_536))
CUDA_SIZES = (
    *((24, 256), (256, 1024), (2048, 1024), (24, 2048), (256, 2048), (24, 4096), (288, 4096)),
    *((2048, 4096), (24, 8192), (256, 8192), (24, 16_384), (256, 16_384)),
    *((3, 65_536), (48, 65_536)),
)
LAUNCH_GROUP_SIZE = 16


@dataclass(frozen=True)
class Problem:
    """What one choice depends on; rows of it compare with each other."""

    kind: str
    op: str
    rows: int
    n: int
    dtype: str
    group_size: int | None
    mode: str

    def __str__(self) -> str:
        groups = f" groups of {self.group_size}" if self.group_size else ""
        return f"{self.op} ({self.rows}, {self.n}) {self.dtype}{groups}, {self.mode}"


def add_flags(parser: argparse.ArgumentParser) -> None:
    flags.timed(parser, repeats=20)
    flags.resumable(parser)
    flags.threads(parser)


def main(options: argparse.Namespace) -> int:
    torch.set_num_threads(options.threads)
    where = environment(options.device, options.commit) | {"threads": str(options.threads)}
    path = options.out / f"sweep_{options.device}.csv"
    red = RedList(options.out / f"red_{options.device}.csv", "sweep", where)
    if not options.resume:
        red.forget()
    wanted = list(_cases(options.device, options.threads))
    left = len(wanted)
    for case in timing.in_time(wanted, time.monotonic() + 60 * options.minutes):
        left -= 1
        here = where | _identity(case)
        done = options.resume and _key(here) in map(_key, results.load(path))
        if done or EVERYTHING in red.names(case):
            continue
        with red.guard(case):
            rows = _implementations(case, here, options.repeats, red)
            if case.device == "cuda":
                rows += _launches(case, here, options.repeats, red)
            results.replace(path, COLUMNS, _CASE, rows)
    print(report(_measured(path, where)))
    print(f"\n{results.origin(where, path)}")
    if left:
        print(f"{left} of {len(wanted)} cases are left: run again with --resume")
    print(red.report())
    return 1 if red.rows() else 0


def _cases(device: str, threads: int) -> Iterator[Case]:
    cuda = device == "cuda"
    sizes, dtypes = CUDA_SIZES if cuda else CPU_SIZES, ("float32", "bfloat16")[: 1 + cuda]
    for group_size, dtype, (rows, n) in itertools.product((16, 256, None), dtypes, sizes):
        if group_size is None or group_size < n:
            op = "place" if group_size else "lift"
            yield Case(op, (1, rows, n), getattr(torch, dtype), group_size, device, threads)


def _implementations(case: Case, here: dict, repeats: int, red: RedList) -> list[dict]:
    student, teacher = inputs(case)
    chosen = _dispatch.choose("auto", student, teacher, case.row_length)
    contenders, left_out = [], red.names(case)
    for implementation in implementations(case, student, teacher, OURS)[0][1:]:  # without naive
        if implementation.name in left_out:
            continue
        with red.guard(case, implementation.name):
            implementation.gradient(implementation.forward(student, teacher), student)
            if case.device == "cpu":
                contenders.append(timing.cpu_contender(implementation, student, teacher))
            else:
                contenders += timing.cuda_contenders(implementation, student, teacher)[0]
    samples = timing.interleave(contenders, repeats)
    made = []
    for mode in sorted({mode for _, mode, _ in samples}):
        times = {name: of for (name, m, _), of in samples.items() if m == mode}
        made += _rows("implementation", mode, times, chosen, here)
    return made


def _launches(case: Case, here: dict, repeats: int, red: RedList) -> list[dict]:
    """The forward kernels of Triton, float32, under every launch worth a thought."""
    if case.dtype != torch.float32 or case.group_size not in (None, LAUNCH_GROUP_SIZE):
        return []
    student, teacher = (x.detach().view(case.shape[1:]) for x in inputs(case))
    named, chosen = alternatives(*student.shape, case.group_size)
    expected = _forward(student, teacher, case.group_size, named[chosen])[0]
    contenders, left_out = [], red.names(case)
    for name, launch in named.items():
        if name in left_out:
            continue
        with red.guard(case, name):
            forward = partial(_forward, student, teacher, case.group_size, launch)
            torch.testing.assert_close(forward()[0], expected, rtol=1e-3, atol=1e-4)
            contenders.append(_launch_contender(name, timing.graphed(forward)))
    samples = timing.interleave(contenders, repeats)
    times = {name: found for (name, _, _), found in samples.items()}
    return _rows("launch", "graph", times, chosen, here)


def _launch_contender(name: str, graph: Callable[[], float]) -> timing.Contender:
    return timing.Contender(name, "graph", "warm", lambda: {"both": graph()})


def alternatives(rows: int, n: int, group_size: int | None) -> tuple[dict[str, object], str]:
    """Launches of the forward by name, no two alike, and the name of today's choice."""
    from liftplace.kernels.fused.launch import lift_launch, next_power_of_two, place_launch

    found = {}
    if group_size is None:
        chosen = lift_launch(rows, n)
        for block in (2048, 4096, 8192, 16_384):
            found[f"blocks up to {block}"] = lift_launch(rows, n, max_block=block)
    else:
        place = partial(place_launch, rows, n, group_size)
        chosen = place()
        if n <= 8192:
            one = place(max_block=next_power_of_two(n))
            for warps in (one.warps // 2, one.warps, one.warps * 2):
                found[f"one program, {warps} warps"] = replace(one, warps=warps)
        for chunk, fan_in in itertools.product((1024, 2048, 4096), (4, 16)):
            if chunk <= n:
                name = f"chunks of {chunk}, merged by {fan_in}"
                found[name] = place(max_block=1, chunk=chunk, fan_in=fan_in)
    named = {}
    for name, launch in {**found, "today's": chosen}.items():
        if launch not in named.values():
            named[name] = launch
    return named, next(name for name, launch in named.items() if launch == chosen)


def _forward(student, teacher, group_size, launch):
    """Group numbers first (LIFT: the fit), then what else the forward gives."""
    from liftplace._contract import Options
    from liftplace.kernels.fused.lift import lift_fwd
    from liftplace.kernels.fused.place import place_fwd

    if group_size is None:
        return lift_fwd(student, teacher, Options(student.shape[1]), launch)[1:]
    return place_fwd(student, teacher, Options(group_size), launch)


def _identity(case: Case) -> dict[str, str]:
    _, rows, n = case.shape
    size = {"rows": str(rows), "n": str(n), "group_size": str(case.group_size or "")}
    return {"op": case.op, "dtype": case.dtype_name, **size}


def _key(row: dict) -> dict[str, str]:
    return {name: row[name] for name in (*_CASE, "commit")}


def _measured(path: Path, where: dict[str, str]) -> list[dict]:
    """The file's rows of this device, commit and number of threads, with numbers."""
    key = {name: where[name] for name in ("device", "commit", "threads")}
    rows = [row for row in results.load(path) if row.items() >= key.items()]
    return [row | {name: float(row[name]) for name in ("ms_p50", "over_fastest")} for row in rows]


def _rows(kind: str, mode: str, times: dict, chosen: str, here: dict) -> list[dict]:
    made = []
    for name, samples in times.items():
        row = here | {"kind": kind, "name": name, "mode": mode, "repeats": len(samples)}
        row["chosen"] = "yes" if name == chosen else ""
        made.append(row | results.percentiles("ms", [sample["both"] for sample in samples]))
    fastest = min((row["ms_p50"] for row in made), default=0)
    return [row | {"over_fastest": row["ms_p50"] / fastest} for row in made]


def report(rows: list[dict]) -> str:
    """A line for each problem, the fastest first, and the choices that are not the fastest."""
    problems = {}
    for row in rows:
        problem = Problem(*(row[field.name] for field in fields(Problem)))
        problems.setdefault(problem, []).append(row)
    lines, wrong = [], []
    for problem in sorted(problems, key=lambda found: [str(x).zfill(9) for x in astuple(found)]):
        found = sorted(problems[problem], key=lambda row: row["ms_p50"])
        names = [f"{row['name']}{' (chosen)' if row['chosen'] else ''}" for row in found]
        times = [f"{name} {row['ms_p50']:.4g} ms" for name, row in zip(names, found, strict=True)]
        lines.append(f"{problem}: {', '.join(times)}")
        lost = next((row["over_fastest"] for row in found if row["chosen"]), 1)
        if lost > 1.05:
            wrong.append(f"{problem}: {found[0]['name']} would be {lost:.2f} times as fast")
    verdict = "\n".join(wrong) or "none"
    return "\n".join(lines) + f"\n\nchoices more than 5 % behind the fastest:\n{verdict}"
