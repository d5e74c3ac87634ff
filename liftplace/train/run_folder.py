"""The folder of a run, and the record in it of what the run is."""

import json
from dataclasses import asdict
from pathlib import Path

import yaml

from liftplace import __version__
from liftplace.common.errors import UsageError
from liftplace.common.files import write_text_whole
from liftplace.train.run_config import MAY_CHANGE_ON_RESUME, RunConfig

RECORD = "run.json"
SETTINGS = "config.yaml"


def check_output_dir(config: RunConfig) -> None:
    """Make sure that the output folder holds nothing that the run would spoil. Writes nothing.

    Raises:
        UsageError: it holds another run, or anything else that is not the run to resume.
    """
    folder = Path(config.output_dir)
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--output_dir {folder} is a file: name a folder")
    if not folder.is_dir() or not any(folder.iterdir()):
        return
    if not (folder / RECORD).is_file():
        raise UsageError(f"--output_dir {folder} is not empty and holds no run: name a new folder")
    if config.resume_from_checkpoint is None:
        raise UsageError(
            f"--output_dir {folder} holds another run: name a new folder, or continue that run "
            "with --resume_from_checkpoint latest"
        )
    _check_same(folder, asdict(config), "settings")


def check_same_run(config: RunConfig, objectives: dict[str, dict], effective_batch: int) -> None:
    """
    Raises:
        UsageError: the folder's run minimises something else, or in batches of another size.
    """
    folder = Path(config.output_dir)
    if not (folder / RECORD).is_file():
        return
    _check_same(folder, objectives, "objectives")
    theirs = _read(folder, "effective_batch")
    if theirs != effective_batch:
        raise UsageError(
            f"--output_dir {folder} holds another run: its steps see {theirs} images, not "
            f"{effective_batch}: keep train_batch_size * gradient_accumulation_steps * processes"
        )


def claim_output_dir(config: RunConfig, objectives: dict[str, dict], effective_batch: int) -> None:
    """Write the record of the run and config.yaml, which --config takes to do it again, into its
    folder, which is made if need be.

    Raises:
        UsageError: the folder cannot be written to.
    """
    folder = Path(config.output_dir)
    record = {
        "liftplace": __version__,
        "settings": asdict(config),
        "objectives": objectives,
        "effective_batch": effective_batch,
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_text_whole(folder / SETTINGS, yaml.safe_dump(_plain(asdict(config)), sort_keys=False))
        write_text_whole(folder / RECORD, json.dumps(record, indent=2) + "\n")
    except OSError as error:
        raise UsageError(f"cannot write to --output_dir {folder}: {error.strerror}") from error


def _plain(settings: dict) -> dict:
    return json.loads(json.dumps(settings))  # tuples become lists


def _read(folder: Path, part: str):
    try:
        return json.loads((folder / RECORD).read_text(encoding="utf-8"))[part]
    except (OSError, ValueError, KeyError) as error:
        raise UsageError(f"cannot read {folder / RECORD}, the record of the run") from error


def _check_same(folder: Path, ours: dict, part: str) -> None:
    ours, theirs = _plain(ours), _read(folder, part)
    for name in sorted((ours.keys() | theirs.keys()) - MAY_CHANGE_ON_RESUME):
        if ours.get(name) != theirs.get(name):
            raise UsageError(
                f"--output_dir {folder} holds another run: its {name} is {theirs.get(name)}, not "
                f"{ours.get(name)}"
            )
