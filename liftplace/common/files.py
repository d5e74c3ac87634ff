"""Files and folders that are there whole, or not at all.

What is being written has a hidden name beside its place, `.NAME.partial`. It is flushed to the disk
and then renamed. A process that is killed leaves the hidden one, which the next writer replaces.
"""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from liftplace.common.errors import UsageError

RESULTS = "results.json"


def partial_of(path: Path) -> Path:
    """The hidden name that a file or folder has while it is written."""
    return path.with_name(f".{path.name}.partial")


@contextmanager
def whole_file(path: Path, *, shared: bool = False) -> Iterator[Path]:
    """Gives a path to write to. It becomes `path` if the block ends well, else it is removed.

    Args:
        path: of the file, which may exist; its folder is made.
        shared: several processes may write this file at once, so each uses a name of its own.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = partial_of(path)
    if shared:
        partial = partial.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        _flush_file(partial)
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def write_whole(path: Path, content: bytes, *, shared: bool = False) -> None:
    """Writes a file with `whole_file`."""
    with whole_file(path, shared=shared) as partial:
        partial.write_bytes(content)


def write_text_whole(path: Path, text: str) -> None:
    """Writes a text file in UTF-8 with `whole_file`."""
    write_whole(path, text.encode())


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """Gives a folder to write in. It becomes `folder` if the block ends well, else it is removed.

    Args:
        folder: new, or empty.
    """
    partial = partial_of(folder)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    with _removed_on_error(partial):
        yield partial
        flush(partial)
        put_in_place(partial, folder)


@contextmanager
def new_folder(output_dir: Path) -> Iterator[Path]:
    """`whole_folder` for an --output_dir: several processes may try to write the same one.

    Raises:
        UsageError: `output_dir` is a file or not empty, or its parent cannot be written to.
    """
    check_free(output_dir)
    parent = output_dir.absolute().parent
    try:
        parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{output_dir.name}-", dir=parent))
    except OSError as error:
        raise UsageError(f"cannot write to --output_dir {output_dir}: {error.strerror}") from error
    with _removed_on_error(partial):
        yield partial
        check_free(output_dir)  # minutes have gone by
        partial.chmod(0o755)  # mkdtemp's folders are private
        flush(partial)
        put_in_place(partial, output_dir)


@contextmanager
def updated_folder(folder: Path) -> Iterator[Path]:
    """Gives a folder to write in. If the block ends well, what is in it replaces what has the same
    name in `folder`, files last. Everything else in `folder` stays as it is.

    Args:
        folder: made if need be.
    """
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / ".saving"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    with _removed_on_error(partial):
        yield partial
        flush(partial)
        for new in sorted(partial.iterdir(), key=lambda path: path.is_file()):
            old = folder / new.name
            if old.is_dir():
                shutil.rmtree(old)
            os.replace(new, old)
        partial.rmdir()


def replace_folder(folder: Path) -> None:
    """Puts `partial_of(folder)`, which is complete and flushed, in the place of `folder`. Where a
    process is killed in between, `recover_folder` restores the new folder or the old one."""
    old = _old_of(folder)
    if folder.is_dir():
        os.replace(folder, old)
    os.replace(partial_of(folder), folder)
    shutil.rmtree(old, ignore_errors=True)


def recover_folder(folder: Path, is_complete: Callable[[Path], bool]) -> None:
    """Ends what a killed `replace_folder` left half done.

    Args:
        folder: as given to `replace_folder`.
        is_complete: says whether a partial folder has all of its files.
    """
    partial, old = partial_of(folder), _old_of(folder)
    if not folder.is_dir():
        if is_complete(partial):
            os.replace(partial, folder)
        elif old.is_dir():
            os.replace(old, folder)
    for leftover in (partial, old):
        shutil.rmtree(leftover, ignore_errors=True)


def put_in_place(partial: Path, folder: Path) -> None:
    """Renames a folder that is complete and flushed; `folder` is new or empty."""
    if folder.is_dir():
        folder.rmdir()
    os.replace(partial, folder)
    _flush_entries(folder.absolute().parent)


def flush(folder: Path) -> None:
    """Makes sure that all files of the folder are on the disk."""
    for path in folder.rglob("*"):
        if path.is_file():
            _flush_file(path)
    _flush_entries(folder)


def check_free(output_dir: Path) -> None:
    """Raises UsageError unless `output_dir` is new or an empty folder."""
    if output_dir.is_dir():
        if (output_dir / RESULTS).is_file():
            raise UsageError(
                f"--output_dir {output_dir} holds the results of an earlier run: name another "
                "folder, or remove that one first"
            )
        if any(output_dir.iterdir()):
            raise UsageError(f"--output_dir {output_dir} is not empty: name a new folder")
    elif output_dir.exists():
        raise UsageError(f"--output_dir {output_dir} is a file: name a new folder")


@contextmanager
def _removed_on_error(partial: Path) -> Iterator[None]:
    try:
        yield
    except BaseException:  # Ctrl-C too
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _old_of(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.old")


def _flush_file(path: Path) -> None:
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def _flush_entries(folder: Path) -> None:
    """The names in a folder; a rename is on the disk after that."""
    if os.name != "posix":
        return  # Windows cannot open a folder to flush it
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
