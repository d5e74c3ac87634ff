"""Captions of a folder of images."""

import csv
import io
import json
import os
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path

from liftplace.common.errors import UsageError
from liftplace.data.folders import walk

METADATA = ("metadata.jsonl", "metadata.csv")


def read_captions(folder: Path, paths: Sequence[Path], column: str) -> list[str]:
    """The captions of images from the metadata files in and below a folder: metadata.jsonl, whose
    lines are like ``{"file_name": "1.png", "text": "a cat"}``, or metadata.csv with the same names
    in its first line. File names are relative to the metadata file, with / or \\ between folders.

    Args:
        column: the caption's name; for "text", "caption" does as well. Of a list of captions the
            first is taken.

    Raises:
        UsageError: no such file, a line that cannot be read, two captions for one image, an image
            without a caption.
    """
    files = sorted(
        parent / name for parent, names in walk(folder) for name in METADATA if name in names
    )
    if not files:
        raise UsageError(
            f'{folder} has no captions: need a file {METADATA[0]} with lines like {{"file_name": '
            f'"1.png", "{column}": "a cat"}}, or {METADATA[1]}'
        )
    captions: dict[str, str] = {}
    for file in files:
        for where, entry in _entries(file, column):
            path, caption = _read_entry(file, where, entry, column)
            if captions.setdefault(path, caption) != caption:
                raise UsageError(f"{file}, {where}: a second, other caption of {path}: leave one")
    keys = [_key(path) for path in paths]
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


def _read_entry(file: Path, where: str, entry, column: str) -> tuple[str, str]:
    """The key of an image, and its caption."""
    try:
        name = entry["file_name"]
        caption = entry[column] if column in entry or column != "text" else entry["caption"]
        path = file.parent / name
        if "\\" in name and not path.exists():
            path = file.parent / name.replace("\\", "/")
    except (KeyError, TypeError) as error:
        raise _malformed(file, where, column, entry) from error
    if isinstance(caption, list) and caption:
        caption = caption[0]
    if not isinstance(caption, str):
        raise UsageError(f"{file}, {where}: the caption must be text, got {caption!r}")
    return _key(path), caption


def _malformed(file: Path, where: str, column: str, found) -> UsageError:
    return UsageError(
        f'{file}, {where}: need {{"file_name": ..., "{column}": ...}}, got {str(found)[:80]}'
    )
