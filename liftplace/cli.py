"""The command line: liftplace demo | prune | encode | distill | train | sample | evaluate
| analyze | report.

Bad input ends with one line on stderr and exit code 2, a run that failed with one line and 1, and
Ctrl-C with 130. Where the output is closed (`| head`) it ends quietly. Heavy imports wait for the
command that needs them.
"""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib import import_module

from liftplace.common.errors import UsageError
from liftplace.common.places import check_places

CLOSED_PIPE = 128 + 13  # as a shell says of a program that SIGPIPE ends


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of the `liftplace` script; `argv` without the program's name."""
    argv = list(sys.argv[1:] if argv is None else argv)
    try:
        try:
            code = _run(argv)
        finally:  # of --help too
            sys.stdout.flush()
        sys.exit(code)
    except BrokenPipeError:
        # Whoever read the lines has enough of them, as head does; what is left goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(CLOSED_PIPE)
    except UsageError as error:
        # One that comes out of a process that reads images brings that process's traceback.
        _say(str(error).rsplit("UsageError: ", 1)[-1])
        sys.exit(2)
    except KeyboardInterrupt as error:
        _say(error if error.args else "interrupted")
        sys.exit(130)


@dataclass(frozen=True, kw_only=True)
class DemoOptions:
    """Distil small students of a shipped teacher on real digits: one that fails, what mends it."""

    output_dir: str = "liftplace-demo"
    """Folder of the results: new or empty."""
    fast: bool = False
    """Fewer steps: about half a minute instead of about three."""

    def check_complete(self) -> None:
        if not self.output_dir:
            raise UsageError("--output_dir is empty: name the folder of the results")


def _run(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help"):
        print(_usage())
        return 0
    if argv[0] == "--version":
        from liftplace import __version__

        print(f"liftplace {__version__}")
        return 0
    if argv[0] not in COMMANDS:
        raise UsageError(
            f"there is no command {argv[0]!r}: choose from {', '.join(COMMANDS)}, or see --help"
        )
    return COMMANDS[argv[0]].run(argv[1:]) or 0


@dataclass(frozen=True)
class Command:
    """A command whose flags are the fields of a dataclass, in a module beside what it calls."""

    name: str
    summary: str
    config: str
    """module:class of the dataclass; importing it waits for no model library."""
    function: str
    """module:function to call with it."""

    def run(self, argv: list[str]) -> int:
        config = _parse(_named(self.config), self.name, argv)
        config.check_complete()  # before the imports that take seconds
        check_places(config)
        return _fails_in_one_line(_named(self.function), config)


def _demo(options: DemoOptions) -> None:
    _named("liftplace.demo.experiment:run")(options.output_dir, fast=options.fast)


def _fails_in_one_line(run: Callable, *arguments, **options) -> int:
    toolkit = _toolkit("liftplace.train")
    try:
        run(*arguments, **options)
    except BrokenPipeError:
        raise
    except (toolkit.NonFiniteError, toolkit.CheckpointError, OSError) as error:
        _say(error)
        return 1
    return 0


COMMANDS = {
    command.name: command
    for command in (
        Command(
            "demo", "distil small students on real digits: one that fails, and what mends it",
            "liftplace.cli:DemoOptions", "liftplace.cli:_demo",
        ),
        Command(
            "prune", "make a small student of a teacher, with its weights",
            "liftplace.students.config:PruneConfig", "liftplace.students.prune:prune",
        ),
        Command(
            "encode", "keep a dataset's latents and text embeddings on disk",
            "liftplace.data.config:EncodeConfig", "liftplace.data.encode:encode",
        ),
        Command(
            "distill", "distil a student from a teacher",
            "liftplace.train.config:DistillConfig", "liftplace.train.commands:distill",
        ),
        Command(
            "train", "train a model from scratch",
            "liftplace.train.config:TrainConfig", "liftplace.train.commands:train",
        ),
        Command(
            "sample", "sample images from a saved model",
            "liftplace.evaluate.sample:SampleConfig", "liftplace.evaluate.sample:sample",
        ),
        Command(
            "evaluate", "score the samples of a saved model",
            "liftplace.evaluate.config:EvaluateConfig", "liftplace.evaluate.evaluate:evaluate",
        ),
        Command(
            "analyze", "show where students differ from their teacher",
            "liftplace.analyze.config:AnalyzeConfig", "liftplace.analyze.analyze:analyze",
        ),
        Command(
            "report", "draw the curves and samples of training runs side by side",
            "liftplace.report.report:ReportConfig", "liftplace.report.report:report",
        ),
    )
}  # fmt: skip


def _usage() -> str:
    commands = "\n".join(f"  {name:<9}{command.summary}" for name, command in COMMANDS.items())
    return (
        "usage: liftplace COMMAND [--flag value ...]\n\n"
        f"{commands}\n\n"
        "liftplace COMMAND --help lists its flags. liftplace --version prints the version."
    )


def _parse(options_class: type, command: str, argv: list[str]):
    """Flags over the YAML file of --config over the preset over the defaults."""
    tyro = _toolkit("tyro")
    description = options_class.__doc__.split("\n")[0]
    # The same fields without their checks, whose errors tyro would turn into a page of text.
    unchecked = type(options_class.__name__, (options_class,), {"__post_init__": lambda self: None})
    description += "\n\n--config FILE.yaml gives settings by their names; flags win over it."
    file, argv = _take_out("--config", argv)
    files = [] if file is None else [file]
    if getattr(options_class, "has_presets", False):
        description += " --preset ddpm|sd|dit gives those of the paper's experiments; both win."
        preset, argv = _take_out("--preset", argv)
        if preset is not None:
            files.insert(0, _named("liftplace.train.config:preset_file")(preset))
    settings = {}
    for path in files:
        settings |= _named("liftplace.common.settings:read_yaml")(path, options_class)
    default = unchecked(**asdict(options_class(**settings)))
    flags = tyro.cli(
        unchecked,
        prog=f"liftplace {command}",
        description=description,
        args=argv,
        default=default,
        use_underscores=True,
    )
    return options_class(**asdict(flags))


def _take_out(flag: str, argv: list[str]) -> tuple[str | None, list[str]]:
    """The value of a flag that is no setting, and the other arguments."""
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    finder.add_argument(flag, dest="value")
    found, rest = finder.parse_known_args(argv)
    return found.value, rest


def _named(place: str):
    """What module:attribute names."""
    module, name = place.split(":")
    return getattr(_toolkit(module), name)


def _toolkit(module: str):
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("liftplace"):
            raise
        raise UsageError(
            f'the package {error.name} is not installed: pip install "liftplace[demo]"'
        ) from error


def _say(message: object) -> None:
    """One line on stderr."""
    print("liftplace:", " ".join(str(message).split()), file=sys.stderr)
