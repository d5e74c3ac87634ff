"""python -m benchmarks ops: check every implementation of the loss ops, then time them together.

A run can be stopped and taken up again: rows are saved after every case, `--minutes` starts no case
that would end later, and `--resume` skips what the file already holds for this commit. What is
wrong or fails is left out and named (`benchmarks.red`); the exit code then is 1. Launches are
counted when nothing is left to time, because the profiler may slow what follows it.
"""

import argparse
import gc
import time
from pathlib import Path

import torch
from torch._dynamo.exc import TorchDynamoException

from benchmarks import flags, gate, memory, results, timing
from benchmarks.cases import Case, cases, inputs
from benchmarks.environment import environment
from benchmarks.implementations import BASELINE, implementations
from benchmarks.red import EVERYTHING, RedList
from benchmarks.targets import targets

IMPLEMENTATIONS = (
    *("torch", "native", "triton", "cuda", "compile", "compile-max-autotune"),
    *("mse", "mse-compile", "copy"),
)


def add_flags(parser: argparse.ArgumentParser) -> None:
    flags.timed(parser, repeats=30)
    flags.resumable(parser)
    add, several = parser.add_argument, {"nargs": "+", "default": None}
    threads = "one run for each (default: 1 2; cuda: what torch has)"
    only = "only these beside naive, the baseline (default: all but compile-max-autotune)"
    add("--threads", type=flags.count, **several, help=threads)
    add("--ops", nargs="+", choices=("place", "lift"), default=["place", "lift"])
    add("--shapes", type=flags.shape, metavar="B,C,H,W", **several)
    add("--dtypes", choices=("float32", "bfloat16", "float16"), **several)
    add("--group_sizes", type=flags.count, **several)
    add("--implementations", choices=IMPLEMENTATIONS, **several, help=only)


def main(options: argparse.Namespace) -> int:
    where = environment(options.device, options.commit)
    path = options.out / f"ops_{options.device}.csv"
    red = RedList(options.out / f"red_{options.device}.csv", "ops", where)
    if not options.resume:
        red.forget()
    wanted, reasons = cases(options), {}
    deadline = time.monotonic() + 60 * options.minutes
    left = len(wanted)
    for case in timing.in_time(wanted, deadline):
        done = _names(path, case, where) if options.resume else set()
        left -= 1
        with red.guard(case):
            try:
                rows, skipped = measure(
                    case, where, options.repeats, options.implementations, done, red
                )
            except torch.OutOfMemoryError as error:
                rows, skipped = [], {str(case): results.first_line(error)}
            reasons |= skipped
            if rows:
                results.save(path, rows)
    uncounted = len(wanted) if options.device == "cuda" else 0
    if uncounted and not left:
        for case in timing.in_time(wanted, deadline):
            uncounted -= 1
            with red.guard(case):
                count_launches(path, case, where, options.implementations)
    report(path, wanted, where, reasons)
    if left:
        print(f"{left} of {len(wanted)} cases are left: run again with --resume")
    elif uncounted:
        print(f"the launches of {uncounted} cases are left to count: run again with --resume")
    print(red.report())
    return 1 if red.rows() else 0


def measure(
    case: Case,
    where: dict[str, str],
    repeats: int,
    wanted: list[str] | None,
    done: set[str],
    red: RedList,
) -> tuple[list[dict], dict[str, str]]:
    """Gate, memory and time of one case: its rows, and why something is missing from them.

    No rows where all that can run here is in `done`, or where the baseline is red.
    """
    _fresh_start(case)
    student, teacher = inputs(case)
    found, skipped = implementations(case, student, teacher, wanted)
    left_out = red.names(case)
    found = [each for each in found if not {each.name, EVERYTHING} & left_out]
    if {implementation.name for implementation in found} <= done:
        return [], skipped
    want = gate.expected(case, student, teacher)
    green = []
    for implementation in found:
        with red.guard(case, implementation.name):
            try:
                gate.check(implementation, case, student, teacher, want)
                green.append(implementation)
            except TorchDynamoException as error:
                skipped[implementation.name] = f"torch.compile failed: {results.first_line(error)}"
            except torch.OutOfMemoryError as error:
                skipped[f"{implementation.name} on {case}"] = results.first_line(error)
    del want
    if BASELINE not in {implementation.name for implementation in green}:
        return [], skipped | {str(case): "there is no baseline"}
    used, contenders = {}, []
    flush = timing.l2_flush() if case.device == "cuda" else None
    for implementation in green:
        name = implementation.name
        with red.guard(case, name):
            implementation.gradient(implementation.forward(student, teacher), student)
            if not implementation.own_graph:
                used[name] = memory.measure(implementation, student, teacher)
            if flush is None:
                contenders.append(timing.cpu_contender(implementation, student, teacher))
                continue
            added, reason = timing.cuda_contenders(implementation, student, teacher, flush)
            contenders += added
            if reason:
                skipped[f"{name} as a CUDA graph"] = reason
    samples = timing.interleave(contenders, repeats)
    return results.rows(case, where, samples, used), skipped


def count_launches(path: Path, case: Case, where: dict[str, str], wanted: list[str] | None) -> None:
    """Count what each implementation launches where the file does not say yet."""
    blank = {"mode": "eager", "phase": "both", "launches": ""}
    rows = [row for row in _at(path, case, where) if row.items() >= blank.items()]
    missing = {row["implementation"] for row in rows}
    if not missing:
        return
    _fresh_start(case)
    student, teacher = inputs(case)
    counts = {}
    for implementation in implementations(case, student, teacher, wanted)[0]:
        if implementation.name in missing:
            for _ in range(3):  # compiles, and records graphs of its own
                implementation.gradient(implementation.forward(student, teacher), student)
            counts[implementation.name] = timing.count_launches(implementation, student, teacher)
    results.save_launches(path, results.identity(case, where), counts)


def report(path: Path, wanted: list[Case], where: dict[str, str], reasons: dict) -> None:
    """Print a table of every case that the file holds, what is missing, and the targets."""
    found = []
    for case in wanted:
        rows = results.numbers(_at(path, case, where))
        if rows:
            print(results.table(str(case), rows) + "\n")
            found += targets(case, rows)
    print("\n".join(f"not measured: {name}: {why}" for name, why in reasons.items()))
    print("\ntargets\n" + "\n".join(f"  {target}" for target in found))
    print(f"\n{results.origin(where, path)}")


def _fresh_start(case: Case) -> None:
    """Forget compiled code, which has the shape and the number of threads in it, and old memory."""
    torch.set_num_threads(case.threads)
    torch.compiler.reset()
    gc.collect()
    if case.device == "cuda":
        torch.cuda.empty_cache()


def _at(path: Path, case: Case, where: dict[str, str]) -> list[dict[str, str]]:
    """The file's rows of this case at this commit."""
    key = results.identity(case, where) | {"commit": where["commit"]}
    return [row for row in results.load(path) if row.items() >= key.items()]


def _names(path: Path, case: Case, where: dict[str, str]) -> set[str]:
    return {row["implementation"] for row in _at(path, case, where)}
