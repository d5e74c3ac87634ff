"""An output folder that is there whole, or not at all."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from liftplace.common.errors import UsageError

RESULTS = "results.json"


@contextmanager
def new_folder(output_dir: Path) -> Iterator[Path]:
    """Gives a folder to write in, which becomes ``output_dir`` if the block ends well.

    An error or Ctrl-C in the block removes it, and ``output_dir`` is as it was.

    Raises:
        UsageError: ``output_dir`` is a file or not empty, or its parent cannot be written to.
    """
    check_free(output_dir)
    parent = output_dir.absolute().parent
    try:
        parent.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(prefix=f".{output_dir.name}-", dir=parent))
    except OSError as error:
        raise UsageError(f"cannot write to --output_dir {output_dir}: {error.strerror}") from error
    try:
        yield unfinished
        check_free(output_dir)  # minutes have gone by
        if output_dir.is_dir():
            output_dir.rmdir()
        unfinished.chmod(0o755)  # mkdtemp's folders are private
        unfinished.rename(output_dir)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def check_free(output_dir: Path) -> None:
    """Raises UsageError unless ``output_dir`` is new or an empty folder."""
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
