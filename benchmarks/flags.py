"""Flags that several programs have."""

import argparse
from pathlib import Path

RESULTS = Path(__file__).parent / "results"
DEVICES = ("cpu", "cuda")
COMMIT = "what the rows name (default: ask git)"


def timed(parser: argparse.ArgumentParser, repeats: int) -> None:
    """Of a program that times cases and writes <program>_<device>.csv."""
    rows = f"folder of {parser.prog.split()[-1]}_<device>.csv"
    parser.add_argument("--device", choices=DEVICES, default="cpu")
    parser.add_argument("--out", type=Path, default=RESULTS, help=rows)
    parser.add_argument("--repeats", type=count, default=repeats, help="timed rounds of a case")
    parser.add_argument("--commit", default=None, help=COMMIT)


def resumable(parser: argparse.ArgumentParser) -> None:
    """Of a program that can be stopped between its cases."""
    done = "skip what the file already holds for this commit"
    late = "start no case that would end later"
    parser.add_argument("--resume", action="store_true", help=done)
    parser.add_argument("--minutes", type=float, default=float("inf"), help=late)


def threads(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--threads", type=count, default=1, help="CPU threads")


def count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no count: pass at least 1")
    return int(text)


def shape(text: str) -> tuple[int, ...]:
    try:
        sizes = tuple(int(size) for size in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no shape: write B,C,H,W") from error
    if len(sizes) < 3 or min(sizes) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no shape: write B,C,H,W, each at least 1")
    return sizes
