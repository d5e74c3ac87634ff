"""Launch choices: pure functions of the problem's size that return frozen dataclasses.

Nothing here needs a device, so the shape of every output is known without one.
Thresholds are estimates from the compile table (`python -m benchmarks compile`: registers, spills,
instructions) until a timing on a GPU replaces them; each says what it rests on.
"""

from dataclasses import dataclass

from liftplace._arguments import group_count

MAX_ROW = 1 << 20
"""Longest row that is tested: one warp then merges a row's LIFT chunks, four rounds its sort."""

_TILE = 1024
"""Elements a program streams: 8 a thread at 4 warps, two 128-bit loads an operand in float32."""


def next_power_of_two(x: int) -> int:
    """The smallest power of two that is at least `x`."""
    return 1 << (x - 1).bit_length()


def ceil_div(a: int, b: int) -> int:
    """`a / b` rounded up."""
    return -(-a // b)


@dataclass(frozen=True)
class LiftLaunch:
    """Forward of LIFT: tiles of (`tile_rows`, `block`), or `chunks` programs a row and a merge."""

    rows: int
    n: int
    tile_rows: int
    block: int
    chunks: int  # programs a row; 1 = the row stays in registers
    warps: int
    programs: int  # rows of the partial sums

    @property
    def merge_block(self) -> int:
        """Chunks of a row, padded to a power of two."""
        return next_power_of_two(self.chunks)


@dataclass(frozen=True)
class MergeRound:
    """One round that merges `fan_in` sorted runs of `run` keys; `last` writes indices, not keys."""

    run: int
    fan_in: int
    block: int
    warps: int
    last: bool


@dataclass(frozen=True)
class SortLaunch:
    """Sorted order of each row: chunks sorted in registers, then rounds of merging."""

    rows: int
    n: int
    chunk: int
    chunks: int
    warps: int
    rounds: tuple[MergeRound, ...]

    @property
    def length(self) -> int:
        """Keys of a row, padding included."""
        return self.chunk * self.chunks


@dataclass(frozen=True)
class PlaceLaunch:
    """Forward of PLACE: one launch where `sort` is None, else sort and then fit tiles of groups."""

    rows: int
    n: int
    group_size: int
    groups: int  # a row
    block: int  # one launch: the padded row; else the padded width of a tile
    tile_groups: int
    trips: int  # tiles along one group
    warps: int
    programs: int  # rows of the partial sums
    sort: SortLaunch | None


@dataclass(frozen=True)
class BackwardLaunch:
    """Backward of both: tiles of (`tile_rows`, `block`), `blocks` of them across a row."""

    tile_rows: int
    block: int
    blocks: int
    warps: int
    programs: int


@dataclass(frozen=True)
class CombineLaunch:
    """Sum of the partial sums: one program, `trips` tiles of `block`."""

    block: int
    trips: int
    warps: int


def lift_launch(rows: int, n: int, *, max_block: int = 8192) -> LiftLaunch:
    """How LIFT's forward covers (rows, n).

    A row of 8192 takes 16 elements a thread at 16 warps, up to 96 registers. Twice that compiles
    to 127 with Triton 3.6, next to the 128 that 16 warps may have. Longer rows are cut into chunks
    of half the limit, so that few long rows still fill the chip.
    """
    _check(rows, n)
    block = max(16, next_power_of_two(n))
    if block <= max_block:
        tile_rows = max(1, _TILE // block)
        return LiftLaunch(
            rows, n, tile_rows, block, 1, _warps(tile_rows * block, 8), ceil_div(rows, tile_rows)
        )
    block = max_block // 2
    return LiftLaunch(rows, n, 1, block, ceil_div(n, block), _warps(block, 8), rows)


def place_launch(
    rows: int,
    n: int,
    group_size: int,
    *,
    max_block: int = 2048,
    chunk: int | None = None,
    fan_in: int | None = None,
    tile: int = _TILE,
    max_tile: int = 4096,
) -> PlaceLaunch:
    """How PLACE's forward covers (rows, n) in groups of `group_size`.

    One program sorts and fits a row of up to `max_block` when `group_size` is a power of two.
    A bitonic sort of 2048 int64 keys is 66 steps; at 4096 (78 steps) one program is estimated at
    17-24 us against 7-9 us for chunks of 1024 and a merge. A thread holds 4 keys, which takes 64
    registers and so lets an SM hold 1024 threads; with 8 it takes up to 162, and some rows of 2048
    spill (Triton 3.9). A group wider than `max_tile` is read a tile at a time. `chunk`, `fan_in`
    and `tile` are there for tests and measurements.
    """
    _check(rows, n)
    groups = group_count(n, group_size) if group_size >= 1 else 0
    if groups < 2:
        raise ValueError(
            f"group_size must be at least 1 and leave two groups of the row length {n}, got "
            f"{group_size}; use lift_fwd for one group a row"
        )
    most = max(group_size, n - (groups - 1) * group_size)  # elements of a group
    block = next_power_of_two(n)
    if block <= max_block and most == group_size == next_power_of_two(group_size):
        return PlaceLaunch(
            rows, n, group_size, groups, block, block // group_size, 1, _warps(block, 4), rows, None
        )
    block = min(next_power_of_two(most), max_tile)
    tile_groups = max(1, tile // block)
    return PlaceLaunch(
        rows,
        n,
        group_size,
        groups,
        block,
        tile_groups,
        ceil_div(most, block),
        _warps(tile_groups * block, 8),
        rows * ceil_div(groups, tile_groups),
        _sort_launch(rows, n, chunk, fan_in, tile),
    )


def backward_launch(rows: int, n: int) -> BackwardLaunch:
    """How the streaming backward covers (rows, n): short rows share a tile, long ones span many."""
    _check(rows, n)
    block = min(_TILE, max(16, next_power_of_two(n)))
    tile_rows = _TILE // block
    blocks = ceil_div(n, block)
    return BackwardLaunch(
        tile_rows, block, blocks, _warps(_TILE, 8), ceil_div(rows, tile_rows) * blocks
    )


def combine_launch(programs: int) -> CombineLaunch:
    """How one program sums `programs` partial sums; trips are powers of two, so few variants."""
    block = min(_TILE, max(32, next_power_of_two(programs)))
    trips = next_power_of_two(ceil_div(programs, block))
    return CombineLaunch(block, trips, _warps(block, 8))


def _sort_launch(rows: int, n: int, chunk: int | None, fan_in: int | None, tile: int) -> SortLaunch:
    if chunk is None:
        chunk = _chunk(n)
    chunks = ceil_div(n, chunk)
    if fan_in is None:
        fan_in = _fan_in(rows, n)
    rounds = []
    run = chunk
    while run < n:
        siblings = min(fan_in, next_power_of_two(ceil_div(n, run)))
        last = run * siblings >= n
        block = min(chunk, max(16, tile // siblings))
        rounds.append(MergeRound(run, siblings, block, _warps(block * siblings, 8), last))
        run *= siblings
    return SortLaunch(rows, n, chunk, chunks, _warps(chunk, 8), tuple(rounds))


def _chunk(n: int) -> int:
    """Keys that one program sorts.

    Up to 2048 the row itself, so that nothing is merged. Then 1024: more programs when rows are
    few, 55 steps each. From 16,384 on 4096: 78 steps, but a quarter of the runs to search.
    """
    if n <= 2048:
        return next_power_of_two(n)
    return 1024 if n < 16_384 else 4096


def _fan_in(rows: int, n: int) -> int:
    """Runs merged at a time.

    Sixteen runs cost an element 15 binary searches in one round, two rounds of four only 6. With
    little work the launch of the second round costs more than the searches that it saves; the
    estimate puts the break-even near a quarter of a million elements.
    """
    return 16 if rows * n <= 1 << 18 else 4


def _warps(elements: int, per_thread: int) -> int:
    """Warps that give each thread about `per_thread` elements, between 1 and 16."""
    return min(16, max(1, next_power_of_two(elements) // (32 * per_thread)))


def _check(rows: int, n: int) -> None:
    if rows < 1:
        raise ValueError(f"rows must be at least 1, got {rows}; an empty batch needs no kernel")
    if not 1 <= n <= MAX_ROW:
        raise ValueError(f"a row must have 1 to {MAX_ROW} elements, got {n}; use impl='torch'")
