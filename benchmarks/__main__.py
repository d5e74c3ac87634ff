"""python -m benchmarks PROGRAM: each program is a module, which reads its own flags."""

import argparse
import importlib
import os
import signal
import sys

from benchmarks.environment import check_device
from benchmarks.red import LOST, DeviceLostError
from liftplace.common.errors import UsageError

PROGRAMS = {
    "ops": "time the loss ops and measure their memory",
    "step": "the loss's share of a training step",
    "train": "steps a second of the trainer on small models",
    "sweep": "time what the launch choices choose between",
    "gpu": "all that is measured on a GPU, in four stages",
    "compile": "compile the GPU kernels ahead of time",
    "study": "train and score students, cell by cell of a grid",
    "emoji": "pictures of colour fonts for --train_data_dir",
    "plot": "draw the CSV files and write the tables of docs/",
}


def parse(arguments: list[str]) -> argparse.Namespace:
    """The flags of the program that is named first; its main stands in `main`."""
    programs = "\n".join(f"  {name:8} {what}" for name, what in PROGRAMS.items())
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=f"{__doc__}\n\n{programs}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("program", choices=PROGRAMS, metavar="PROGRAM")
    name = parser.parse_args(arguments[:1]).program
    module = importlib.import_module(f"benchmarks.{'study.run' if name == 'study' else name}")
    own = argparse.ArgumentParser(prog=f"python -m benchmarks {name}", description=PROGRAMS[name])
    own.set_defaults(main=module.main)
    module.add_flags(own)
    return own.parse_args(arguments[1:])


def main(arguments: list[str] | None = None) -> int:
    options = parse(sys.argv[1:] if arguments is None else arguments)
    try:
        check_device(getattr(options, "device", "cpu"))
        return options.main(options)
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except DeviceLostError as error:
        print(f"error: {error}: run again with --resume", file=sys.stderr)
        return LOST


if __name__ == "__main__":
    # The profiler announces each of its many starts and stops on stderr below this level.
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # `gpu` ends its commands on the way
    code = main()
    if code == LOST:  # what still holds memory of a lost GPU may abort at exit, with another code
        sys.stdout.flush()
        os._exit(code)
    sys.exit(code)
