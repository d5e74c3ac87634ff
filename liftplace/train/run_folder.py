"""The folder of a run, and the record in it of what the run is."""

import json
import os
from dataclasses import asdict
from pathlib import Path

from liftplace import __version__
from liftplace.errors import UsageError
from liftplace.train.config import MAY_CHANGE_ON_RESUME, RunConfig

RECORD = "run.json"


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


def claim_output_dir(config: RunConfig, objectives: dict[str, dict]) -> None:
    """Write the record of the run into its folder, which is made if need be.

    Raises:
        UsageError: the folder's record differs in what the learners minimise, or the folder
            cannot be written to.
    """
    folder = Path(config.output_dir)
    if (folder / RECORD).is_file():
        _check_same(folder, objectives, "objectives")
    record = {"liftplace": __version__, "settings": asdict(config), "objectives": objectives}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        partial = folder / f".{RECORD}.partial"
        partial.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        os.replace(partial, folder / RECORD)
    except OSError as error:
        raise UsageError(f"cannot write to --output_dir {folder}: {error.strerror}") from error


def _check_same(folder: Path, ours: dict, part: str) -> None:
    try:
        theirs = json.loads((folder / RECORD).read_text(encoding="utf-8"))[part]
    except (OSError, ValueError, KeyError) as error:
        raise UsageError(f"cannot read {folder / RECORD}, the record of the run") from error
    ours = json.loads(json.dumps(ours))  # tuples become lists
    for name in sorted((ours.keys() | theirs.keys()) - MAY_CHANGE_ON_RESUME):
        if ours.get(name) != theirs.get(name):
            raise UsageError(
                f"--output_dir {folder} holds another run: its {name} is {theirs.get(name)}, not "
                f"{ours.get(name)}"
            )
