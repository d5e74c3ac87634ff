"""The command line: liftplace demo | distill | train | sample.

Bad input ends with one line on stderr and exit code 2, a run that failed with one line and 1, and
Ctrl-C with 130. Heavy imports wait for the command that needs them.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path

from liftplace.errors import UsageError


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of the `liftplace` script; `argv` without the program's name."""
    argv = list(sys.argv[1:] if argv is None else argv)
    try:
        sys.exit(_run(argv))
    except UsageError as error:
        # One that comes out of a process that reads images brings that process's traceback.
        _say(str(error).rsplit("UsageError: ", 1)[-1])
        sys.exit(2)
    except KeyboardInterrupt as error:
        _say(error if error.args else "interrupted")
        sys.exit(130)


@dataclass(frozen=True, kw_only=True)
class DemoOptions:
    """Distil a small student from a shipped teacher on real digits, four ways, and compare."""

    output_dir: str = "liftplace-demo"
    """Folder of the results: new or empty."""
    fast: bool = False
    """Fewer steps: about half a minute instead of about three."""


@dataclass(frozen=True, kw_only=True)
class SampleOptions:
    """Sample images from a saved model into one PNG."""

    model: str
    """Folder of the model, or its name on the Hugging Face Hub."""
    output: str = "grid.png"
    """The PNG, which must not exist yet."""
    num_samples: int = 64
    num_inference_steps: int = 25
    seed: int = 0
    batch_size: int = 64


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
    _, run = COMMANDS[argv[0]]
    return run(argv[1:]) or 0


def _demo(argv: list[str]) -> int:
    options = _parse(DemoOptions, "demo", argv)
    run = _toolkit("liftplace.demo.experiment").run
    return _fails_in_one_line(run, output_dir=options.output_dir, fast=options.fast)


def _train(argv: list[str]) -> int:
    return _fit("train", "TrainConfig", argv)


def _distill(argv: list[str]) -> int:
    return _fit("distill", "DistillConfig", argv)


def _fit(command: str, config_name: str, argv: list[str]) -> int:
    toolkit = _toolkit("liftplace.train")
    config_class = getattr(toolkit, config_name)
    config = _parse(config_class, command, argv, from_yaml=True)
    config.check_complete()  # before the imports that take seconds
    code = _fails_in_one_line(getattr(_toolkit("liftplace.train.recipes"), command), config)
    folder = config.output_dir
    if code == 0:
        print(f'{folder}: load it with DDPMPipeline.from_pretrained("{folder}")')
    return code


def _fails_in_one_line(run: Callable, *arguments, **options) -> int:
    toolkit = _toolkit("liftplace.train")
    try:
        run(*arguments, **options)
    except (toolkit.NonFiniteError, toolkit.CheckpointError, OSError) as error:
        _say(error)
        return 1
    return 0


def _sample(argv: list[str]) -> None:
    options = _parse(SampleOptions, "sample", argv)
    for name in ("num_samples", "num_inference_steps", "batch_size"):
        if getattr(options, name) < 1:
            raise UsageError(f"--{name} must be at least 1, got {getattr(options, name)}")
    output = Path(options.output)
    if output.exists():
        raise UsageError(f"--output {output} exists: name a new file")
    if not output.parent.is_dir():
        raise UsageError(f"--output {output}: there is no folder {output.parent}")
    loaded = _toolkit("liftplace.train.models").load_model(options.model)
    images = _toolkit("liftplace.evaluate.sampling").sample_images(
        loaded.model.eval(),
        loaded.process().sampler(),
        num_samples=options.num_samples,
        num_inference_steps=options.num_inference_steps,
        seed=options.seed,
        batch_size=options.batch_size,
    )
    _toolkit("liftplace.evaluate.pictures").save_grid(images, output)
    print(f"{output}: {options.num_samples} samples of {options.model}")


COMMANDS = {
    "demo": ("distil a small student on real digits, four ways, and compare", _demo),
    "distill": ("distil a student from a teacher", _distill),
    "train": ("train a model from scratch", _train),
    "sample": ("sample images from a saved model", _sample),
}


def _usage() -> str:
    commands = "\n".join(f"  {name:<9}{summary}" for name, (summary, _) in COMMANDS.items())
    return (
        "usage: liftplace COMMAND [--flag value ...]\n\n"
        f"{commands}\n\n"
        "liftplace COMMAND --help lists its flags. liftplace --version prints the version."
    )


def _parse(options_class: type, command: str, argv: list[str], *, from_yaml: bool = False):
    """Flags over the YAML file of --config over the defaults."""
    tyro = _toolkit("tyro")
    description = options_class.__doc__.split("\n")[0]
    # The same fields without their checks, whose errors tyro would turn into a page of text.
    unchecked = type(options_class.__name__, (options_class,), {"__post_init__": lambda self: None})
    default = None
    if from_yaml:
        description += "\n\n--config FILE.yaml gives settings by their names; flags win over it."
        file, argv = _take_out_config(argv)
        settings = {}
        if file is not None:
            settings = _toolkit("liftplace.train.settings").read_yaml(file, options_class)
        default = unchecked(**asdict(options_class(**settings)))
    flags = tyro.cli(
        unchecked,
        prog=f"liftplace {command}",
        description=description,
        args=argv,
        default=default,
        config=(tyro.conf.FlagCreatePairsOff,) if not from_yaml else (),
        use_underscores=True,
    )
    return options_class(**asdict(flags))


def _take_out_config(argv: list[str]) -> tuple[str | None, list[str]]:
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    finder.add_argument("--config")
    found, rest = finder.parse_known_args(argv)
    return found.config, rest


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


if __name__ == "__main__":
    main()
