"""python -m benchmarks ops | step | train | sweep | gpu | study | compile | emoji | plot"""

import argparse
import importlib
import os
import signal
import sys
from pathlib import Path

from benchmarks.environment import check_device
from benchmarks.red import LOST, DeviceLostError
from liftplace.common.errors import UsageError

RESULTS = Path(__file__).parent / "results"
DOCS = Path(__file__).parents[1] / "docs"
IMPLEMENTATIONS = ("torch", "native", "triton", "cuda", "compile", "compile-max-autotune", "mse",
                   "mse-compile", "copy")  # fmt: skip
STUDENTS = ("2.9 %", "31 %")  # of the demo's teacher
TRAIN_MODES = ("eager", "cuda_graphs", "compile", "compile+cuda_graphs")
DTYPES = ("float32", "bfloat16", "float16")


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)

    ops = commands.add_parser("ops", help="time the loss ops and measure their memory")
    _common(ops, repeats=30)
    ops.add_argument("--threads", type=_count, nargs="+", default=None,
                     help="one run for each (default: 1 2; cuda: what torch has)")  # fmt: skip
    ops.add_argument("--ops", nargs="+", choices=("place", "lift"), default=["place", "lift"])
    ops.add_argument("--shapes", type=_shape, nargs="+", metavar="B,C,H,W", default=None)
    ops.add_argument("--dtypes", nargs="+", choices=DTYPES, default=None)
    ops.add_argument("--group_sizes", type=_count, nargs="+", default=None)
    ops.add_argument("--implementations", nargs="+", choices=IMPLEMENTATIONS, default=None,
                     help="only these beside naive, the baseline "
                     "(default: all but compile-max-autotune)")  # fmt: skip
    _resumable(ops)

    step = commands.add_parser("step", help="the loss's share of a training step")
    _common(step, repeats=20)
    step.add_argument("--models", nargs="+", choices=("unet", "dit"), default=["unet", "dit"])
    step.add_argument("--precisions", nargs="+", choices=("float32", "bfloat16"), default=None,
                      help="bfloat16 is autocast (default: both; cpu: float32)")  # fmt: skip
    step.add_argument("--batch_size", type=_count, default=None,
                      help="default: unet 96, dit 64; cpu: 4")  # fmt: skip
    step.add_argument("--threads", type=_count, default=1, help="CPU threads")

    train = commands.add_parser("train", help="steps a second of the trainer on small models")
    _common(train, repeats=20)
    train.add_argument("--students", nargs="+", choices=STUDENTS, default=STUDENTS)
    train.add_argument("--modes", nargs="+", choices=TRAIN_MODES, default=None,
                       help="beside eager (default: all; cpu: none)")  # fmt: skip
    train.add_argument("--loss", choices=("none", "mse", "lift", "place"), default="place")
    train.add_argument("--precision", choices=("no", "bf16"), default="no")
    train.add_argument("--train_batch_size", type=_count, default=16)
    train.add_argument("--steps", type=_count, default=20, help="of a timed round")
    train.add_argument("--threads", type=_count, default=1, help="CPU threads")

    sweep = commands.add_parser("sweep", help="time what the launch choices choose between")
    _common(sweep, repeats=20)
    _resumable(sweep)
    sweep.add_argument("--threads", type=_count, default=1, help="CPU threads")

    gpu = commands.add_parser("gpu", help="all that is measured on a GPU, in four stages")
    gpu.add_argument("--stage", type=int, choices=(1, 2, 3, 4), required=True)
    gpu.add_argument("--minutes", type=float, default=8.0, help="it takes no longer")
    gpu.add_argument("--device", choices=("cpu", "cuda"), default="cuda", help="cpu: rehearse")
    gpu.add_argument("--out", type=Path, default=RESULTS, help="folder of the rows and the logs")
    gpu.add_argument("--commit", default=None, help="what the rows name (default: ask git)")

    compiled = commands.add_parser("compile", help="compile the GPU kernels ahead of time")
    compiled.add_argument("--out", type=Path, default=RESULTS)
    compiled.add_argument("--kernels", nargs="+", choices=("triton", "cuda"),
                          default=["triton", "cuda"], help="cuda needs nvcc")  # fmt: skip

    study = commands.add_parser("study", help="train and score students, cell by cell of a grid")
    study.add_argument("names", nargs="+", metavar="NAME", help="of benchmarks/study/studies.py")
    study.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    study.add_argument("--seeds", type=_count, default=3, help="that are reported: 0, 1, ...")
    study.add_argument("--methods", nargs="+", metavar="LABEL", default=None,
                       help="only these for now, as in the study's rows")  # fmt: skip
    study.add_argument("--jobs", type=_count, default=os.cpu_count(),
                       help="processes at a time (default: one a core)")  # fmt: skip
    study.add_argument("--learners", type=_count, default=8,
                       help="students that train together beside one teacher")  # fmt: skip
    study.add_argument("--minutes", type=float, default=float("inf"),
                       help="start nothing after so long; the next call goes on")  # fmt: skip
    study.add_argument("--cell", metavar="HASH", default=None,
                       help="train the cell of this row again, and print both")  # fmt: skip
    study.add_argument(
        "--out", type=Path, default=RESULTS, help="folder of study_<name>_<device>.csv"
    )
    study.add_argument("--work_dir", type=Path, default=Path("runs/study"),
                       help="of runs that are not finished")  # fmt: skip
    study.add_argument("--commit", default=None, help="what the rows name (default: ask git)")

    emoji = commands.add_parser("emoji", help="pictures of colour fonts for --train_data_dir")
    emoji.add_argument("fonts", nargs="+", type=Path, metavar="FONT", help="files, see emoji.py")
    emoji.add_argument("--out", type=Path, required=True, help="new folder of the pictures")
    emoji.add_argument("--resolution", type=_count, default=32, help="in pixels")

    plot = commands.add_parser("plot", help="draw the CSV files and write the tables of docs/")
    plot.add_argument("--results", type=Path, default=RESULTS)
    plot.add_argument("--out", type=Path, default=DOCS, help="folder of kernels.md and pictures")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    try:
        check_device(getattr(options, "device", "cpu"))
        return importlib.import_module(f"benchmarks.{options.command}").main(options)
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except DeviceLostError as error:
        print(f"error: {error}: run again with --resume", file=sys.stderr)
        return LOST


def _common(command: argparse.ArgumentParser, repeats: int) -> None:
    command.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    command.add_argument("--out", type=Path, default=RESULTS,
                         help=f"folder of {command.prog.split()[-1]}_<device>.csv")  # fmt: skip
    command.add_argument("--repeats", type=_count, default=repeats, help="timed rounds of a case")
    command.add_argument("--commit", default=None, help="what the rows name (default: ask git)")


def _resumable(command: argparse.ArgumentParser) -> None:
    command.add_argument("--resume", action="store_true",
                         help="skip what the file already holds for this commit")  # fmt: skip
    command.add_argument("--minutes", type=float, default=float("inf"),
                         help="start no case that would end later")  # fmt: skip


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
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # `gpu` ends its commands on the way
    code = main()
    if code == LOST:  # what still holds memory of a lost GPU may abort at exit, with another code
        sys.stdout.flush()
        os._exit(code)
    sys.exit(code)
