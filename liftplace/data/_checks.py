"""Checks of the arguments that every dataset takes."""

from liftplace.common.errors import UsageError

SPLITS = ("train", "test")


def check_resolution(resolution: int) -> None:
    if not isinstance(resolution, int) or isinstance(resolution, bool) or resolution < 1:
        raise UsageError(f"resolution must be an integer of at least 1, got {resolution!r}")


def check_split(split: str) -> None:
    if split not in SPLITS:
        raise UsageError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
