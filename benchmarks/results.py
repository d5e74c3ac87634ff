"""Rows: from samples to a CSV file and to a table."""

import csv
import os
from pathlib import Path

import numpy as np

from benchmarks.cases import Case
from benchmarks.implementations import BASELINE
from benchmarks.memory import Memory

COLUMNS = (
    "date", "device", "driver", "torch", "triton", "commit", "threads", "op", "shape", "dtype",
    "group_size", "implementation", "mode", "l2", "phase", "repeats", "ms_p20", "ms_p50", "ms_p80",
    "ratio_p20", "ratio_p50", "ratio_p80", "gb_per_s", "bytes_peak", "bytes_kept", "launches",
)  # fmt: skip
_CASE = ("device", "threads", "op", "shape", "dtype", "group_size")


def rows(
    case: Case,
    where: dict[str, str],
    samples: dict[tuple, list[dict]],
    memory: dict[str, Memory],
    launches: dict[str, int],
) -> list[dict]:
    """One row for each contender and phase. ratio: the baseline's time over this one's, by round.

    Memory and launches stand where mode is eager and phase is both. gb_per_s counts the bytes that
    any op must move, so that it compares with the copy's.
    """
    shared = {**where, "threads": case.threads, "op": case.op,
              "shape": "x".join(map(str, case.shape)),
              "dtype": str(case.dtype).removeprefix("torch."),
              "group_size": case.group_size or ""}  # fmt: skip
    made = []
    for (name, mode, l2), of_contender in samples.items():
        for phase in of_contender[0]:
            ms = np.array([sample[phase] for sample in of_contender])
            baseline = np.array([sample[phase] for sample in samples[BASELINE, "eager", l2]])
            whole = phase == "both"
            p20, p50, p80 = np.percentile(ms, (20, 50, 80))
            row = dict(shared, implementation=name, mode=mode, l2=l2, phase=phase, repeats=len(ms))
            row |= {"ms_p20": p20, "ms_p50": p50, "ms_p80": p80}
            ratios = np.percentile(baseline / ms, (20, 50, 80))
            row |= dict(zip(("ratio_p20", "ratio_p50", "ratio_p80"), ratios, strict=True))
            row["gb_per_s"] = case.floor_bytes / p50 / 1e6 if whole else ""
            counted = whole and mode == "eager"
            row["bytes_peak"] = memory[name].peak if counted and name in memory else ""
            row["bytes_kept"] = memory[name].kept if counted and name in memory else ""
            row["launches"] = launches.get(name, "") if counted else ""
            made.append(row)
    return made


def save(path: Path, fresh: list[dict]) -> None:
    """Put `fresh` into the file in place of what it held for the same cases; all or nothing."""
    fresh = [{key: _text(row[key]) for key in COLUMNS} for row in fresh]
    replaced = {tuple(row[key] for key in _CASE) for row in fresh}
    kept = [row for row in load(path) if tuple(row[key] for key in _CASE) not in replaced]
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".tmp")
    with beside.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(kept + fresh)
    os.replace(beside, path)


def load(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def _text(value) -> str:
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def table(case: Case, made: list[dict]) -> str:
    """The rows of one case for a terminal: time of each phase, ratio, bytes an element."""
    head = ("implementation", "both ms (p20-p80)", "forward", "backward", "x naive (p20-p80)",
            "GB/s", "peak B/el", "kept B/el", "launches")  # fmt: skip
    lines = [head]
    by_key = {(row["implementation"], row["mode"], row["l2"], row["phase"]): row for row in made}
    for (name, mode, l2, phase), row in by_key.items():
        if phase != "both":
            continue
        parts = [by_key.get((name, mode, l2, part)) for part in ("forward", "backward")]
        sizes = [row[key] for key in ("bytes_peak", "bytes_kept")]
        lines.append((
            " ".join(filter(None, (name, mode if mode != "eager" else "", l2))),
            f"{row['ms_p50']:.3f} ({row['ms_p20']:.3f}-{row['ms_p80']:.3f})",
            *(f"{part['ms_p50']:.3f}" if part else "" for part in parts),
            f"{row['ratio_p50']:.2f} ({row['ratio_p20']:.2f}-{row['ratio_p80']:.2f})",
            f"{row['gb_per_s']:.1f}",
            *(f"{size / case.elements:.2f}" if size != "" else "" for size in sizes),
            str(row["launches"]),
        ))  # fmt: skip
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    text = ("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
            for line in lines)  # fmt: skip
    return f"{case}\n  " + "\n  ".join(text)
