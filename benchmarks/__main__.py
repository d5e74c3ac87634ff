"""python -m benchmarks ops | compile | plot"""

import argparse
import os
import sys
from pathlib import Path

RESULTS = Path(__file__).parent / "results"
DOCS = Path(__file__).parents[1] / "docs"
IMPLEMENTATIONS = ("torch", "native", "triton", "cuda", "compile", "compile-max-autotune", "mse",
                   "mse-compile", "copy")  # fmt: skip


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)

    ops = commands.add_parser("ops", help="time the loss ops and measure their memory")
    ops.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    ops.add_argument("--out", type=Path, default=RESULTS, help="folder of ops_<device>.csv")
    ops.add_argument("--repeats", type=_count, default=30, help="timed rounds of every case")
    ops.add_argument("--threads", type=_count, nargs="+", default=None,
                     help="one run for each (default: 1 2; cuda: what torch has)")  # fmt: skip
    ops.add_argument("--ops", nargs="+", choices=("place", "lift"), default=["place", "lift"])
    ops.add_argument("--shapes", type=_shape, nargs="+", metavar="B,C,H,W", default=None)
    ops.add_argument("--dtypes", nargs="+", choices=("float32", "bfloat16", "float16"),
                     default=None)  # fmt: skip
    ops.add_argument("--group_sizes", type=_count, nargs="+", default=None)
    ops.add_argument("--implementations", nargs="+", choices=IMPLEMENTATIONS, default=None,
                     help="only these beside naive, the baseline (default: all)")  # fmt: skip

    compiled = commands.add_parser("compile", help="compile the Triton kernels ahead of time")
    compiled.add_argument("--out", type=Path, default=RESULTS)

    plot = commands.add_parser("plot", help="draw the CSV files")
    plot.add_argument("--results", type=Path, default=RESULTS)
    plot.add_argument("--out", type=Path, default=DOCS)
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    if options.command == "ops":
        from benchmarks import ops

        return ops.main(options)
    if options.command == "compile":
        from benchmarks import compile

        return compile.main(options.out) or 0
    from benchmarks import plot

    return plot.main(options.results, options.out)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no count: pass at least 1")
    return int(text)


def _shape(text: str) -> tuple[int, ...]:
    try:
        shape = tuple(int(size) for size in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no shape: write B,C,H,W") from error
    if len(shape) < 3 or min(shape) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no shape: write B,C,H,W, each at least 1")
    return shape


if __name__ == "__main__":
    # The profiler announces each of its many starts and stops on stderr below this level.
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")
    sys.exit(main())
