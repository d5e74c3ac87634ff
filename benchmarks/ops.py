"""python -m benchmarks ops: check every implementation of the loss ops, then time them together."""

import argparse
import sys

import torch
from tqdm import tqdm

from benchmarks import gate, memory, results, timing
from benchmarks.cases import Case, cases, inputs
from benchmarks.environment import environment
from benchmarks.implementations import implementations
from benchmarks.targets import targets


def main(options: argparse.Namespace) -> int:
    if options.device == "cuda" and not torch.cuda.is_available():
        print("--device cuda: torch finds no CUDA device here; use --device cpu", file=sys.stderr)
        return 2
    where = environment(options.device)
    path = options.out / f"ops_{options.device}.csv"
    tables, found, reasons = [], [], {}
    wanted = cases(options)
    for number, case in enumerate(wanted, 1):
        torch.set_num_threads(case.threads)
        label = f"[{number}/{len(wanted)}] {case}"
        try:
            rows, skipped = measure(case, where, options.repeats, options.implementations, label)
        except gate.GateError as error:
            print(f"correctness gate is red, nothing is timed: {error}", file=sys.stderr)
            return 1
        results.save(path, rows)  # after every case, so that an interrupted run keeps the others
        tables.append(results.table(case, rows))
        found += targets(case, rows)
        reasons |= skipped
    print("\n\n".join(tables))
    print("\n" + "\n".join(f"not measured: {name}: {why}" for name, why in reasons.items()))
    print("\ntargets\n" + "\n".join(f"  {target}" for target in found))
    print(f"\n{where['device']}, torch {where['torch']}, commit {where['commit']}: {path}")
    return 0


def measure(
    case: Case, where: dict[str, str], repeats: int, wanted: list[str] | None, label: str
) -> tuple[list[dict], dict[str, str]]:
    """Gate, memory and time of one case: its rows, and why something is missing from them."""
    torch.compiler.reset()  # compiled code has the shape and the number of threads in it
    student, teacher = inputs(case)
    found, skipped = implementations(case, student, teacher, wanted)
    want = gate.expected(case, student, teacher)
    for implementation in tqdm(found, f"{label}: gate", leave=False, file=sys.stderr):
        gate.check(implementation, case, student, teacher, want)
    del want
    used, launches, contenders = {}, {}, []
    flush = timing.l2_flush() if case.device == "cuda" else None
    for implementation in found:
        name = implementation.name
        implementation.gradient(implementation.forward(student, teacher), student)  # yardsticks too
        used[name] = memory.measure(implementation, student, teacher)
        if flush is None:
            contenders.append(timing.cpu_contender(implementation, student, teacher))
            continue
        launches[name] = timing.count_launches(implementation, student, teacher)
        added, reason = timing.cuda_contenders(implementation, student, teacher, flush)
        contenders += added
        if reason:
            skipped[f"{name} as a CUDA graph"] = reason
    rounds = tqdm(range(repeats), f"{label}: time", file=sys.stderr)
    samples = timing.interleave(contenders, rounds)
    return results.rows(case, where, samples, used, launches), skipped
