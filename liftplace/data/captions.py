"""Captions of a folder of images."""

import csv
import io
import json
import os
import unicodedata
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

from liftplace.common.errors import UsageError
from liftplace.data.folders import walk

METADATA = ("metadata.jsonl", "metadata.csv")


def read_captions(folder: Path, paths: Sequence[Path], column: str, root: Path) -> list[str]:
    """The captions of images from the metadata files in and below a folder: metadata.jsonl, whose
    lines are like ``{"file_name": "1.png", "text": "a cat"}``, or metadata.csv with the same names
    in its first line. File names are relative to the metadata file or to the folder above it, with
    / or \\ between folders. Without such files from 1.txt beside 1.png.

    Args:
        root: of the whole dataset, where `folder` is a split: its metadata file counts too.
        column: the caption's name; for "text", "caption" does as well. Of a list of captions the
            first is taken.

    Raises:
        UsageError: no such file, a line that cannot be read, two captions for one image, an image
            without a caption.
    """
    files = sorted(
        parent / name for parent, names in walk(folder) for name in METADATA if name in names
    )
    if root != folder:
        files += [root / name for name in METADATA if (root / name).is_file()]
    if not files and any(path.with_suffix(".txt").is_file() for path in paths):
        return [_read_text(path.with_suffix(".txt")) for path in paths]
    if not files:
        raise UsageError(
            f'{folder} has no captions: need a file {METADATA[0]} with lines like {{"file_name": '
            f'"1.png", "{column}": "a cat"}}, or {METADATA[1]}, or a text file beside each image'
        )
    captions: dict[str, str] = {}
    keys = [_key(path) for path in paths]
    known = set(keys)
    for file in files:
        for where, entry in _entries(file, column):
            path, caption = _read_entry(file, where, entry, column, known)
            if captions.setdefault(path, caption) != caption:
                raise UsageError(f"{file}, {where}: a second, other caption of {path}: leave one")
    _warn_of_lost(files[0], [path for path in captions if path not in known])
    missing = [path for path, key in zip(paths, keys, strict=True) if key not in captions]
    if missing:
        raise UsageError(
            f"{len(missing)} images have no caption in {files[0]}, the first is {missing[0]}: add "
            "a line, or move them away"
        )
    return [captions[key] for key in keys]


def _key(path: Path | str) -> str:
    """A path as it is compared: file systems and editors differ in how they compose accents."""
    return unicodedata.normalize("NFC", os.path.normpath(path))


def _entries(file: Path, column: str) -> Iterator[tuple[str, object]]:
    """Where each entry stands, and what it holds."""
    try:
        text = file.read_text(encoding="utf-8-sig")  # editors on Windows begin with a mark
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read {file}: {error}") from error
    if file.suffix == ".csv":
        rows = csv.DictReader(io.StringIO(text, newline=""))
        yield from ((f"line {rows.line_num}", row) for row in rows)
        return
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                yield f"line {number}", json.loads(line)
            except ValueError as error:
                raise _malformed(file, f"line {number}", column, line) from error


def _read_entry(file: Path, where: str, entry, column: str, known: set[str]) -> tuple[str, str]:
    """The key of an image, one of those known if it can be, and its caption."""
    try:
        name = entry["file_name"]
        caption = entry[column] if column in entry or column != "text" else entry["caption"]
        path = _find(file, name, known)
    except (KeyError, TypeError, AttributeError) as error:
        raise _malformed(file, where, column, entry) from error
    if isinstance(caption, list) and caption:
        caption = caption[0]
    if not isinstance(caption, str):
        raise UsageError(f"{file}, {where}: the caption must be text, got {caption!r}")
    return path, caption


def _find(file: Path, name: str, known: set[str]) -> str:
    """The key of the image of that name: the first that is known, or else that beside the file."""
    names = (name, name.replace("\\", "/"))
    keys = (_key(os.path.join(parent, each)) for parent in file.parents[:2] for each in names)
    return next((key for key in keys if key in known), None) or _key(file.parent / name)


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read caption {path}: {error}") from error


def _warn_of_lost(file: Path, paths: list[str]) -> None:
    """Images that are named but not there; those of another split are."""
    lost = [path for path in paths if not os.path.exists(path)]
    if lost:
        warnings.warn(
            f"{file}: {len(lost)} images that it names are not there, the first is {lost[0]}",
            stacklevel=2,
        )


def _malformed(file: Path, where: str, column: str, found) -> UsageError:
    return UsageError(
        f'{file}, {where}: need {{"file_name": ..., "{column}": ...}}, got {str(found)[:80]}'
    )
