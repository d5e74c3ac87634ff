"""Launch choices cover every element once and stay within what a GPU has."""

import pytest

from liftplace._arguments import group_count
from liftplace.kernels.cuda.launch import (
    backward_launch,
    combine_launch,
    lift_launch,
    place_launch,
)

SHARED = {"sm_80": 163 * 1024, "sm_86": 99 * 1024, "sm_90": 227 * 1024}  # of a block
LENGTHS = [2, 3, 64, 97, 256, 1024, 2048, 2049, 4096, 8192, 8193, 12_289, 16_384, 16_385, 65_536]
LENGTHS += [70_001, 1 << 20, 10_000_019]


@pytest.mark.parametrize("shared", SHARED.values(), ids=SHARED)
@pytest.mark.parametrize("n", LENGTHS)
def test_place(n, shared):
    for size in {1, 2, 3, 16, 100, 256, 5000, 15_000, n // 2, n - 2}:
        if not 1 <= size < n - 1:
            continue
        launch = place_launch(7, n, size, shared)
        assert launch.groups == group_count(n, size)
        assert launch.threads % 32 == 0
        assert launch.threads <= {4: 512, 8: 1024, 16: 1024, 0: 768, -1: 512}[launch.kind]
        assert launch.shared <= shared
        assert launch.blocks == 7 * launch.parts
        # no part is empty, and together they have every group
        assert (launch.parts - 1) * launch.part_groups < launch.groups
        assert launch.parts * launch.part_groups >= launch.groups
        if launch.kind > 0:
            assert launch.kind * launch.threads >= n
        elif launch.kind == 0:
            assert launch.part_groups * size + 1 + 2 * launch.slack <= 16 * launch.threads


def test_place_holds_a_row_of_16384_from_sm_80_on():
    assert place_launch(1, 16_384, 16, SHARED["sm_80"]).kind == 16
    assert place_launch(1, 16_384, 16, SHARED["sm_86"]).kind == 0
    assert place_launch(1, 65_536, 16, SHARED["sm_80"]).parts == 6


def test_two_rows_of_4096_share_a_multiprocessor():
    launch = place_launch(256, 4096, 16, SHARED["sm_80"])
    assert launch.threads == 512
    assert 2 * (launch.shared + 1024) <= 164 * 1024


@pytest.mark.parametrize("n", [1, *LENGTHS])
def test_lift(n):
    launch = lift_launch(n)
    assert launch.threads % 32 == 0
    assert launch.threads <= (256 if launch.chunks > 1 else 1024)
    length = 8 * launch.threads
    assert (launch.chunks - 1) * length < n <= launch.chunks * length


@pytest.mark.parametrize("blocks", [1, 33, 1024, 1 << 20])
def test_combine(blocks):
    assert combine_launch(blocks).threads in range(32, 1025, 32)


@pytest.mark.parametrize("n", [1, *LENGTHS])
@pytest.mark.parametrize("group_size", [1, 2, 16, 256, 1 << 30])
def test_backward(n, group_size):
    groups = -(-n // group_size)
    launch = backward_launch(5, n, groups)
    assert launch.threads in range(32, 513, 32)
    assert launch.shared <= SHARED["sm_86"]
    if launch.tiles:
        assert launch.blocks == 5 * launch.tiles
        assert launch.tile % 4 == 0
        assert (launch.tiles - 1) * launch.tile < n <= launch.tiles * launch.tile
    else:
        assert 4 * launch.blocks * launch.threads >= 5 * n
