"""Which of the real images are taken, where not all of them are."""

import numpy as np
import torch
from torch import Tensor

from liftplace.common.errors import UsageError

SHUFFLE_SEED = 0  # one for all: every score of a folder is against the same of its images


def shuffled(size: int, count: int) -> Tensor:
    """The first `count` of a permutation of `size` indices that never changes, (count,), int64.

    Files lie in an order that means something: sorted by class, or a class after the other in turn.
    A stride takes one class of two, and splits a folder into halves that are unlike; any part of a
    permutation is a random one. More only appends.

    Raises:
        ValueError: more than there are.
    """
    _check(size, count)
    # numpy promises the same permutation in every version
    order = np.random.RandomState(SHUFFLE_SEED).permutation(size)
    return torch.from_numpy(order[:count])


def spread(size: int, count: int) -> Tensor:
    """`count` indices spread evenly over `size`: of images that are known to be sorted by class,
    as the packaged ones are, all classes alike. The demo and the studies, whose rows stay
    comparable, take their images so; of a user's folder take `shuffled`.

    Raises:
        ValueError: more than there are.
    """
    _check(size, count)
    return torch.arange(count) * size // count


def _check(size: int, count: int) -> None:
    if count > size:
        raise ValueError(f"count must be at most {size}, the number of images, got {count}")


def too_few_images(
    count: int,
    where: str,
    size: int,
    *,
    count_flag: str = "--num_samples",
    fewest: int = 1,
    floor: bool = True,
) -> UsageError:
    """The error of a score of `count` samples against fewer real images.

    Args:
        where: the real images, as the user named them.
        size: how many there are.
        count_flag: the setting that says `count`.
        fewest: samples that can be scored at all.
        floor: whether as many other images are scored too, where there are any.
    """
    advice = f"give {count_flag} {size} or less"
    if floor and size >= 2 * fewest:
        advice += f" ({size // 2} or less for the score of real images beside it)"
    if size < fewest:
        advice = f"give {fewest} images or more"
    return UsageError(
        f"{count_flag} is {count}, but {where} has {size} images, and a score needs as many real "
        f"ones: {advice}"
    )
