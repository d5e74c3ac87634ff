"""Classes and captions of a folder of images."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

from liftplace.common.errors import UsageError

METADATA = "metadata.jsonl"


def class_names(folder: Path) -> tuple[str, ...]:
    """The subfolders of a folder by name, whether or not there are images in them.

    Raises:
        UsageError: there is none.
    """
    names = sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    if not names:
        raise UsageError(f"{folder} has no class labels: need one subfolder of images a class")
    return tuple(names)


def class_of(path: Path, folder: Path, classes: Sequence[str]) -> int:
    """Number of the class whose folder an image is in."""
    name = path.relative_to(folder).parts[0]
    if name not in classes:
        raise UsageError(f"{path} has no class label: move it into a subfolder of {folder}")
    return classes.index(name)


def read_captions(folder: Path, paths: Sequence[Path], column: str) -> list[str]:
    """The captions of images from the metadata.jsonl files in and below a folder, whose lines are
    like ``{"file_name": "1.png", "text": "a cat"}``, file names beside the metadata file.

    Args:
        column: the caption's name in a line; for "text", "caption" does as well.

    Raises:
        UsageError: no such file, a line that cannot be read, an image without a caption.
    """
    files = sorted(folder.rglob(METADATA))
    if not files:
        raise UsageError(
            f'{folder} has no captions: need a file {METADATA} with lines like {{"file_name": '
            f'"1.png", "{column}": "a cat"}}'
        )
    captions = {}
    for file in files:
        captions |= _read(file, column)
    missing = [path for path in paths if os.path.normpath(path) not in captions]
    if missing:
        raise UsageError(
            f"{len(missing)} images have no caption in {files[0]}, the first is {missing[0]}: add "
            "a line, or move them away"
        )
    return [captions[os.path.normpath(path)] for path in paths]


def _read(file: Path, column: str) -> dict[str, str]:
    """Captions by normalised path."""
    captions = {}
    try:
        lines = file.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read {file}: {error}") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            path = os.path.normpath(file.parent / entry["file_name"])
            caption = entry[column] if column in entry or column != "text" else entry["caption"]
        except (ValueError, KeyError, TypeError) as error:
            raise UsageError(
                f'{file}, line {number}: need {{"file_name": ..., "{column}": ...}}, got '
                f"{line[:80]}"
            ) from error
        if not isinstance(caption, str):
            raise UsageError(f"{file}, line {number}: the caption must be text, got {caption!r}")
        captions[path] = caption
    return captions
