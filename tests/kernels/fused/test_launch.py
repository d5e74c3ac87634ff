"""Launch choices: pure functions that cover every element within the kernels' limits."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from liftplace.kernels.fused.launch import (
    MAX_ROW,
    backward_launch,
    combine_launch,
    lift_launch,
    next_power_of_two,
    place_launch,
)

ROWS = st.integers(1, 1 << 20)
LENGTHS = st.one_of(st.integers(1, 5000), st.integers(1, MAX_ROW))


def _is_power_of_two(x: int) -> bool:
    return x == next_power_of_two(x)


@given(ROWS, LENGTHS)
def test_lift_covers_every_element(rows, n):
    launch = lift_launch(rows, n)
    assert launch.block * launch.chunks >= n
    assert launch.block * (launch.chunks - 1) < n
    assert launch.programs * launch.tile_rows >= rows
    assert _is_power_of_two(launch.block) and _is_power_of_two(launch.tile_rows)
    assert _is_power_of_two(launch.warps) and launch.merge_block <= 256
    assert launch.tile_rows * launch.block <= 8192


@given(ROWS, LENGTHS, st.data())
def test_place_covers_every_element(rows, n, data):
    if n < 3:
        return
    size = data.draw(st.one_of(st.integers(1, n - 2), st.integers(1, min(n - 2, 40))))
    launch = place_launch(rows, n, size)
    most = n - (launch.groups - 1) * size  # elements of the last group
    assert 1 <= most <= size + 1 and (most > 1 or size == 1)
    most = max(most, size)
    assert _is_power_of_two(launch.warps)
    if launch.sort is None:
        assert n <= launch.block <= 2048
        assert launch.programs == rows
        return
    assert launch.block * launch.trips >= most
    assert launch.block * (launch.trips - 1) < most
    tiles, rest = divmod(launch.programs, rows)
    assert rest == 0 and tiles * launch.tile_groups >= launch.groups
    assert launch.tile_groups * launch.block <= 4096


@given(ROWS, st.integers(2, MAX_ROW), st.sampled_from([None, 16, 64]), st.sampled_from([None, 2]))
def test_rounds_merge_the_row(rows, n, chunk, fan_in):
    sort = place_launch(rows, n, 1, max_block=1, chunk=chunk, fan_in=fan_in).sort
    run = sort.chunk
    for merge in sort.rounds:
        assert merge.run == run < n
        assert _is_power_of_two(merge.fan_in) and _is_power_of_two(merge.block)
        assert run % merge.block == 0 and sort.length % merge.block == 0
        run *= merge.fan_in
        assert merge.last == (run >= n)
    assert run >= n
    assert n <= sort.length < n + sort.chunk


@given(ROWS, LENGTHS)
def test_backward_covers_every_element(rows, n):
    launch = backward_launch(rows, n)
    assert launch.blocks * launch.block >= n
    assert launch.programs // launch.blocks * launch.tile_rows >= rows
    assert launch.tile_rows * launch.block == 1024


@given(st.integers(1, 1 << 22))
def test_combine_covers_every_program(programs):
    launch = combine_launch(programs)
    assert launch.block * launch.trips >= programs
    assert _is_power_of_two(launch.trips)


@pytest.mark.parametrize(
    "rows, n, named", [(0, 16, "rows"), (1, 0, "got 0"), (1, MAX_ROW + 1, "row")]
)
def test_sizes_out_of_range(rows, n, named):
    for choose in (lift_launch, backward_launch):
        with pytest.raises(ValueError, match=named):
            choose(rows, n)
