"""What is where in a folder of pictures: files, splits and classes."""

import json
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from liftplace.common.errors import UsageError
from liftplace.data.pictures import SUFFIXES

ARCHIVES = frozenset({".zip", ".tar", ".gz", ".tgz", ".7z", ".rar"})
_Files = tuple[Path, list[str]]
SPLIT_NAMES = frozenset({"train", "test", "val", "valid", "validation"})


def picture_files(folder: Path) -> list[Path]:
    """The pictures in and below a folder, links to folders followed, sorted by path. What is hidden
    (._a.png of macOS, .ipynb_checkpoints) is no picture."""
    return sorted(_pictures(folder))


def _pictures(folder: Path) -> Iterator[Path]:
    for parent, names in walk(folder):
        for name in names:
            if os.path.splitext(name)[1].lower() in SUFFIXES:
                yield parent / name


def walk(folder: Path, above: frozenset[tuple[int, int]] = frozenset()) -> Iterator[_Files]:
    """Each folder in and below a folder with the names of its files; hidden ones are left out,
    links are followed, and every folder is read once."""
    status = folder.stat()
    if (status.st_dev, status.st_ino) in above:  # a link to a folder that it is in
        return
    above |= {(status.st_dev, status.st_ino)}
    files, folders = [], []
    with os.scandir(folder) as entries:
        for entry in entries:
            if is_hidden(entry.name):
                continue
            if entry.is_dir():
                folders.append(entry.name)
            elif entry.is_file():
                files.append(entry.name)
    yield folder, files
    for name in folders:
        yield from walk(folder / name, above)


def has_archives(folder: Path) -> bool:
    return any(path.suffix in ARCHIVES for path in folder.iterdir())


def is_hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def subfolders(folder: Path) -> list[str]:
    """Names, sorted as numbers where all are numbers."""
    with os.scandir(folder) as entries:
        names = [each.name for each in entries if each.is_dir() and not is_hidden(each.name)]
    return sorted(names, key=int) if are_numbers(names) else sorted(names)


def are_numbers(names: Sequence[str]) -> bool:
    return bool(names) and all(re.fullmatch(r"\d+", name) for name in names)


def folder_of_split(folder: Path, split: str) -> Path:
    """The subfolder of a split; the folder itself, all of it "train", where it has no splits.

    Subfolders are splits where all that hold pictures are called train, test or validation, so that
    a class called train does not hide the others. The only one that holds some is "train".

    Raises:
        UsageError: no such folder or split.
    """
    if not folder.is_dir():
        raise UsageError(
            f'no folder {folder}: give a folder of images, or "digits" for the packaged digits'
        )
    names = subfolders(folder)
    others = [name for name in names if name not in SPLIT_NAMES]
    named = {"train", "test"} & set(names)
    if named and not any(_holds_pictures(folder / name) for name in others):
        only = [name for name in names if _holds_pictures(folder / name)]
        if split == "train" and split not in names and len(only) == 1:
            split = only[0]
        if split not in names:
            raise UsageError(f"no folder {folder / split} for split={split!r}")
        return folder / split
    if split != "train":
        raise UsageError(f"split={split!r} needs a folder {folder / split}")
    return folder


def _holds_pictures(folder: Path) -> bool:
    return next(_pictures(folder), None) is not None


def class_numbers(folder: Path, class_map: str | Path | None = None) -> dict[str, int]:
    """The class number of each subfolder: its place by name, numbers as numbers; or what a JSON
    file says, like {"n01440764": 0}.

    Raises:
        UsageError: no subfolder, or a file that cannot be read or leaves a subfolder out.
    """
    names = subfolders(folder)
    if not names:
        raise UsageError(f"{folder} has no class labels: need one subfolder of images a class")
    if class_map is None:
        return {name: number for number, name in enumerate(names)}
    numbers = _read_class_map(Path(class_map))
    if missing := [name for name in names if name not in numbers]:
        raise UsageError(
            f"--class_map {class_map} has no number for {missing[0]}, a subfolder of {folder}"
        )
    return {name: numbers[name] for name in names}


def _read_class_map(path: Path) -> dict[str, int]:
    try:
        numbers = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read --class_map {path}: {error}") from error
    if not isinstance(numbers, dict) or not all(
        type(number) is int and number >= 0 for number in numbers.values()
    ):
        raise UsageError(f'--class_map {path} must be like {{"cat": 0, "dog": 1}}')
    return numbers


def class_of(path: Path, folder: Path, numbers: dict[str, int]) -> int:
    """Number of the class whose folder a picture is in."""
    name = path.parts[len(folder.parts)]  # faster than relative_to, which counts for many images
    if name not in numbers:
        raise UsageError(f"{path} has no class label: move it into a subfolder of {folder}")
    return numbers[name]
