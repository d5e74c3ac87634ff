"""Rows: from samples to a CSV file and to a table."""

import csv
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch

from benchmarks.cases import Case
from benchmarks.implementations import BASELINE
from benchmarks.memory import Memory
from liftplace.common.text_table import text_table

WHERE = ("date", "device", "driver", "torch", "triton", "commit", "threads")  # of every program
COLUMNS = (
    *WHERE,
    *"op shape dtype group_size implementation mode l2 phase repeats ms_p20 ms_p50 ms_p80".split(),
    *"ratio_p20 ratio_p50 ratio_p80 bytes_peak bytes_kept launches".split(),
)
CASE = ("device", "threads", "op", "shape", "dtype", "group_size")
_NUMBERS = COLUMNS[COLUMNS.index("repeats") :]


def identity(case: Case, where: dict[str, str]) -> dict[str, str]:
    """The columns `CASE` of a case, as the file has them."""
    shape, group_size = "x".join(map(str, case.shape)), str(case.group_size or "")
    values = (where["device"], str(case.threads), case.op, shape, case.dtype_name, group_size)
    return dict(zip(CASE, values, strict=True))


def case_of(row: dict[str, str]) -> Case:
    """The case of a row."""
    shape = tuple(int(size) for size in row["shape"].split("x"))
    group_size = int(row["group_size"]) if row["group_size"] else None
    device = "cuda" if row["l2"] else "cpu"  # a CPU's cache is not told warm from cold
    dtype = getattr(torch, row["dtype"])
    return Case(row["op"], shape, dtype, group_size, device, int(row["threads"]))


def rows(
    case: Case,
    where: dict[str, str],
    samples: dict[tuple, list[dict]],
    memory: dict[str, Memory],
) -> list[dict]:
    """One row for each contender and phase. ratio: the baseline's time over this one's, by round.

    Memory stands where mode is eager and phase is both. Launches are counted later.
    """
    shared = {**where, **identity(case, where)}
    made = []
    for (name, mode, l2), of_contender in samples.items():
        for phase in of_contender[0]:
            ms = np.array([sample[phase] for sample in of_contender])
            baseline = np.array([sample[phase] for sample in samples[BASELINE, "eager", l2]])
            row = dict(shared, implementation=name, mode=mode, l2=l2, phase=phase, repeats=len(ms))
            row |= percentiles("ms", ms) | percentiles("ratio", baseline / ms)
            counted = phase == "both" and mode == "eager" and name in memory
            row["bytes_peak"] = memory[name].peak if counted else ""
            row["bytes_kept"] = memory[name].kept if counted else ""
            row["launches"] = ""
            made.append(row)
    return made


def percentiles(name: str, values) -> dict[str, float]:
    """The columns NAME_p20, NAME_p50 and NAME_p80."""
    return {f"{name}_p{p}": np.percentile(values, p) for p in (20, 50, 80)}


def around(row: dict, name: str, form: str = ".2f") -> str:
    """The median, and from the 20th to the 80th percentile."""
    p20, p50, p80 = (format(row[f"{name}_p{p}"], form) for p in (20, 50, 80))
    return f"{p50} ({p20}-{p80})"


def first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0]


def reason(error: Exception) -> str:
    return f"{type(error).__name__}: {first_line(error)}"


def keep(path: Path, columns: Sequence[str], of: Sequence[str], rows, skipped) -> None:
    """Write the rows of a run, told from others by the columns `of`, and say what is missing."""
    replace(path, columns, of, rows)
    for name, why in skipped.items():
        print(f"not measured: {name}: {why}")


def origin(where: dict[str, str], path: Path) -> str:
    return f"{where['device']}, torch {where['torch']}, commit {where['commit']}: {path}"


def gb_per_s(case: Case, row: dict) -> float:
    """The bandwidth of forward and backward, counting only what must be moved."""
    return case.floor_bytes(row["implementation"]) / row["ms_p50"] / 1e6


def save(path: Path, fresh: list[dict]) -> None:
    """Put `fresh` in place of what the file held for the same cases and implementations."""
    replace(path, COLUMNS, (*CASE, "implementation"), fresh)


def replace(
    path: Path, columns: Sequence[str], identity: Sequence[str], fresh: Iterable[dict]
) -> None:
    """Put `fresh` in place of the file's rows that have the same in the columns `identity`."""

    def key(row: dict[str, str]) -> tuple[str, ...]:
        return tuple(row[name] for name in identity)

    texts = [{name: _text(row[name]) for name in columns} for row in fresh]
    replaced = {key(row) for row in texts}
    write(path, columns, [row for row in load(path) if key(row) not in replaced] + texts)


def save_launches(path: Path, key: dict[str, str], launches: dict[str, int]) -> None:
    """Note how much each implementation of the case `key` launches beside its eager rows."""
    found = load(path)
    for row in found:
        counted = row["mode"] == "eager" and row["phase"] == "both"
        if counted and row["implementation"] in launches and row.items() >= key.items():
            row["launches"] = str(launches[row["implementation"]])
    write(path, COLUMNS, found)


def write(path: Path, columns: Iterable[str], lines: list[dict]) -> None:
    """Write a CSV file, all of it or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".tmp")
    with beside.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows({key: _text(value) for key, value in line.items()} for line in lines)
    os.replace(beside, path)


def load(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def numbers(loaded: list[dict[str, str]]) -> list[dict]:
    """Loaded rows with their measurements as numbers; what was not measured stays ""."""
    return [
        {key: float(value) if key in _NUMBERS and value else value for key, value in row.items()}
        for row in loaded
    ]


def _text(value) -> str:
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def table(title: str, made: list[dict]) -> str:
    """The rows of one case for a terminal: time of each phase, ratio, bytes an element."""
    lines = [("", "both ms (p20-p80)", "forward", "backward", "x naive (p20-p80)")]
    lines[0] += ("GB/s", "peak B/el", "kept B/el", "launches")
    case = case_of(made[0])
    by_key = {(row["implementation"], row["mode"], row["l2"], row["phase"]): row for row in made}
    for (name, mode, l2, phase), row in by_key.items():
        if phase != "both":
            continue
        parts = [by_key.get((name, mode, l2, part)) for part in ("forward", "backward")]
        sizes = [row[key] for key in ("bytes_peak", "bytes_kept")]
        line = [" ".join(filter(None, (name, mode if mode != "eager" else "", l2)))]
        line += [around(row, "ms", ".3f")]
        line += [f"{part['ms_p50']:.3f}" if part else "" for part in parts]
        line += [around(row, "ratio"), f"{gb_per_s(case, row):.1f}"]
        line += [f"{size / case.elements:.2f}" if size != "" else "" for size in sizes]
        line += [f"{row['launches']:.0f}" if row["launches"] != "" else ""]
        lines.append(tuple(line))
    return f"{title}\n{text_table(lines)}"
