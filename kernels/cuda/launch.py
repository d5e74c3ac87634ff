"""Launch choices: pure functions of the problem's size that return frozen dataclasses.

Nothing here needs a device. Thresholds are estimates, from registers and shared memory
as compiled (tests/kernels/cuda/test_build.py), until a timing on a GPU replaces them.
"""

from dataclasses import dataclass
from functools import partial

from liftplace._arguments import group_count

MAX_ROW = (1 << 31) - 1
"""Elements of a row: an index in it is a uint32, a count of them too."""

_SCRATCH = 1024 + 16
"""Bytes for reductions and before the counters (common.cuh, rank.cuh)."""

_REDUCTION = 256
"""Bytes for reductions alone."""

_ROW_ITEMS, _PART, _WIDE = (4, 8, 16), 0, -1


@dataclass(frozen=True)
class PlaceLaunch:
    """Forward of PLACE. `kind`: items a thread, one block a row; 0: `parts` blocks a row, each of
    `part_groups` groups; -1: a block for each group, wider than a block holds."""

    rows: int
    n: int
    group_size: int
    groups: int  # of a row
    kind: int
    parts: int
    part_groups: int
    slack: int  # elements that a part may collect beyond either end
    blocks: int
    threads: int
    shared: int  # bytes


@dataclass(frozen=True)
class LiftLaunch:
    """Forward of LIFT: a block a row, or `chunks` blocks a row and one that merges them."""

    chunks: int
    threads: int
    shared: int = _REDUCTION


@dataclass(frozen=True)
class CombineLaunch:
    """Sum of the partial sums, one block."""

    threads: int
    shared: int = _REDUCTION


@dataclass(frozen=True)
class BackwardLaunch:
    """Backward: `tiles` blocks a row with a table of its groups, or (0) four elements a thread."""

    tiles: int
    tile: int  # elements
    blocks: int
    threads: int
    shared: int


def place_launch(
    rows: int,
    n: int,
    group_size: int,
    max_shared: int,
    *,
    part_threads: int = 768,
    row_threads: int = 1024,
) -> PlaceLaunch:
    """How PLACE's forward covers (rows, n) in groups of `group_size` < n.

    A block holds a row while threads and shared memory last: 16,384 elements from 163 KB on. Few
    items a thread mean more warps to hide latency with, so short rows take 4. At 8 items, 512
    threads and at most 64 registers two rows of 4,096 share a multiprocessor.
    `max_shared`: bytes a block may have. The thread limits are there for tests.
    """
    groups = group_count(n, group_size)
    launch = partial(PlaceLaunch, rows, n, group_size, groups)
    for items, most in zip(_ROW_ITEMS, (512, 1024, 1024), strict=True):
        threads = _threads(ceil_div(n, items))
        shared = _row_shared(items, threads)
        if threads <= min(most, row_threads) and shared <= max_shared:
            return launch(items, 1, groups, 0, rows, threads, shared)
    # 12 bytes an element: its bucket and word, and where it stands in the row.
    threads = min(part_threads, (max_shared - _SCRATCH) // (12 * 16) // 32 * 32)
    capacity = 16 * threads
    slack = capacity // 24  # below it no further digit is counted; on Gaussian errors one does
    most_groups = (capacity - 2 * slack - 1) // group_size  # the last may have one element more
    if most_groups == 0:
        threads = min(512, threads)
        shared = _SCRATCH + 4 * 16 * threads
        return launch(_WIDE, groups, 1, 1, rows * groups, threads, shared)
    parts = ceil_div(groups, most_groups)
    part_groups = ceil_div(groups, parts)
    parts = ceil_div(groups, part_groups)
    shared = _SCRATCH + 12 * capacity
    return launch(_PART, parts, part_groups, slack, rows * parts, threads, shared)


def lift_launch(n: int, *, most: int = 8192) -> LiftLaunch:
    """How LIFT's forward covers rows of n: 8 elements a thread; beyond `most` in chunks of 2,048,
    so that few long rows fill the chip too."""
    if n <= most:
        return LiftLaunch(1, _threads(ceil_div(n, 8)))
    return LiftLaunch(ceil_div(n, 8 * 256), 256)


def combine_launch(blocks: int) -> CombineLaunch:
    """How one block sums the partial sums of `blocks` blocks."""
    return CombineLaunch(min(1024, _threads(blocks)))


def backward_launch(rows: int, n: int, groups: int, *, max_groups: int = 4096) -> BackwardLaunch:
    """How the backward covers (rows, n) with `groups` a row.

    A group's entry in the table costs five reads and 20 bytes, and saves five reads an element: it
    pays where a block has four elements a group or more. 4,096 groups are 80 KB, two blocks a
    multiprocessor. Rows below 512 would leave a block too little to do.
    """
    if n < 512 or groups > min(max_groups, n // 4):
        return BackwardLaunch(0, 0, ceil_div(rows * ceil_div(n, 4), 256), 256, 0)
    threads = min(512, _threads(ceil_div(n, 8)))
    tiles = ceil_div(n, max(8 * threads, 4 * groups))
    tile = 4 * ceil_div(n, 4 * tiles)
    return BackwardLaunch(tiles, tile, rows * tiles, threads, 20 * groups)


def ceil_div(a: int, b: int) -> int:
    """`a / b` rounded up."""
    return -(-a // b)


def _threads(count: int) -> int:
    """`count` threads in whole warps."""
    return 32 * ceil_div(count, 32)


def _row_shared(items: int, threads: int) -> int:
    """Counters and words, and in their place later (s, d): 8 bytes an element."""
    counters = threads * (16 if items == 16 else 2 * items)
    return _SCRATCH + 4 * (counters + items * threads)
