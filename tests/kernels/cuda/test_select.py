"""Rows longer than a block holds: parts of a row's ranks, and groups wider than a block."""

import pytest
import torch

from tests.kernels.harness import group_numbers, pair

from .harness import assert_agrees, emulated, run
from .test_rank import errors

SMALL = {"row_threads": 32, "part_threads": 32}  # 512 elements a block, 21 of slack


@pytest.fixture
def small(emulation, monkeypatch):
    with emulated(monkeypatch, emulation, **SMALL):
        yield


@pytest.mark.parametrize("n", [513, 1000, 2047, 5003])
@pytest.mark.parametrize("size", [2, 16, 100, 470])
def test_parts(n, size, small):
    assert_agrees(*pair(2, n, "cpu"), size)


@pytest.mark.parametrize("size", [471, 513, 700, 1999])
def test_groups_wider_than_a_block(size, small):
    assert_agrees(*pair(2, 2000, "cpu"), size)


@pytest.mark.parametrize(
    "kind", ["all equal", "half tied", "one huge", "underflowing", "integers", "bfloat16"]
)
@pytest.mark.parametrize("size", [16, 600])
def test_ties_across_parts(kind, size, small):
    assert_agrees(*errors(kind, 1, 3001, "cpu"), size)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("size", [16, 600])
def test_a_bad_number_gives_no_quiet_loss(bad, size, small):
    student, teacher = pair(2, 1500, "cpu")
    student[1, 40] = bad
    actual = run(student, teacher, size)
    assert not actual.loss.isfinite()
    assert not actual.grad[1, 40].isfinite()


def test_the_order_of_threads_does_not_show(emulation, monkeypatch):
    student, teacher = errors("integers", 2, 1500, "cpu")
    results = []
    for seed in range(3):
        with emulated(monkeypatch, emulation, seed, **SMALL):
            results.append(run(student, teacher, 16))
    for result in results[1:]:
        for one, other in zip(results[0], result, strict=True):
            assert torch.equal(one, other)


@pytest.mark.parametrize("n, size", [(20_011, 16), (65_601, 16), (17_000, 15_000)])
def test_long_rows(n, size, device):
    """The real launch: several parts; a group wider than a part."""
    assert_agrees(*pair(1, n, device), size)


def test_numbers_of_more_than_65536_groups(device):
    student, teacher = pair(1, 65_601, device)
    actual = run(student, teacher, 1)
    assert torch.equal(actual.group, group_numbers(student, teacher, 1))
    assert actual.group.max() == 65_600


REAL = [(48, 65_536, 16), (48, 65_536, 256), (3, 100_003, 100)]
REAL += [(1, 1_048_576, 15), (2, 1_048_576, 400_000)]


@pytest.mark.gpu
@pytest.mark.parametrize("rows, n, size", REAL)
def test_real_sizes(rows, n, size):
    assert_agrees(*pair(rows, n, "cuda"), size)
