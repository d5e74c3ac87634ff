"""Batches of a dataset, of whose pictures one may turn out to be damaged."""

import warnings
from collections.abc import Callable, Iterator
from typing import NamedTuple

from torch.utils.data import DataLoader, Dataset, default_collate

from liftplace.data.pictures import UnreadableImageError

MOST_IN_A_ROW = 100  # unreadable pictures: with more the disk is gone, not a picture


def read_batches(
    dataset: Dataset, on_problem: Callable[[str], None] | None = None, **options
) -> Iterator[dict]:
    """What a DataLoader gives, with damaged pictures named in one line however many processes read.

    Args:
        dataset: map-style.
        on_problem: told of every picture that cannot be read, and why; the next one that can takes
            its place. Without it the first ends the reading.
        options: of the DataLoader.

    Raises:
        UnreadableImageError: a picture, or too many in a row.
    """
    attempts = 1 if on_problem is None else min(MOST_IN_A_ROW, len(dataset))
    loader = DataLoader(_Checked(dataset, attempts), collate_fn=_collate, **options)
    for items, problems in loader:
        if items is None:
            in_a_row = "" if on_problem is None else f"{attempts} images in a row, the first: "
            raise UnreadableImageError(in_a_row + problems[0])
        for problem in problems:
            on_problem(problem)
        yield items


class SkipUnreadable(Dataset):
    """A dataset in which the next picture takes the place of one that cannot be read, with a
    warning."""

    def __init__(self, dataset: Dataset) -> None:
        self._checked = _Checked(dataset, min(MOST_IN_A_ROW, len(dataset)))

    def __len__(self) -> int:
        return len(self._checked)

    def __getitem__(self, index: int) -> dict:
        item, problems = self._checked[index]
        if item is None:
            raise UnreadableImageError(problems[0])
        for problem in problems:
            warn_of(problem)
        return item


def warn_of(problem: str) -> None:
    """An `on_problem` that goes on; Python prints every warning once."""
    warnings.warn(f"{problem}: the next image takes its place", stacklevel=2)


class _Item(NamedTuple):
    item: dict | None
    problems: list[str]


class _Checked(Dataset):
    """Items, or what follows them, with what could not be read; errors do not pass through worker
    processes as they are."""

    def __init__(self, dataset: Dataset, attempts: int) -> None:
        self.dataset = dataset
        self.attempts = attempts

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> _Item:
        problems = []
        for number in range(index, index + self.attempts):
            try:
                return _Item(self.dataset[number % len(self.dataset)], problems)
            except UnreadableImageError as error:
                problems.append(str(error))
        return _Item(None, problems)


def _collate(items: list[_Item]) -> _Item:
    problems = [problem for each in items for problem in each.problems]
    whole = [each.item for each in items if each.item is not None]
    return _Item(default_collate(whole) if len(whole) == len(items) else None, problems)
