"""Checks of the arguments that every dataset takes."""

from typing import Literal, get_args

from liftplace.common.errors import UsageError

SPLITS = ("train", "test")
ResizeMode = Literal["crop", "squash"]


def check_split(split: str) -> None:
    if split not in SPLITS:
        raise UsageError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")


def check_resize_mode(mode: str) -> None:
    if mode not in get_args(ResizeMode):
        modes = ", ".join(get_args(ResizeMode))
        raise UsageError(f"resize_mode must be one of {modes}, got {mode!r}")
