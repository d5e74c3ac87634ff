"""Group numbers are exactly those of a stable sort, whatever the errors."""

import pytest
import torch

from liftplace._contract import Options, group_number
from liftplace.kernels.cpu import op

from .inputs import KINDS, expected_groups, row

pytestmark = pytest.mark.skipif(not op.is_built(), reason=str(op.not_built))


def groups(student: torch.Tensor, teacher: torch.Tensor, size: int) -> torch.Tensor:
    _, fitted = op.forward(student, teacher, None, Options(size))
    return group_number(fitted.group)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n", [3, 4, 31, 100, 997, 4097, 20_011])
def test_groups(kind, n):
    difference = row(kind, n)
    student = torch.zeros(1, n)
    for size in {1, 2, 3, 16, 100, n // 2, n - 2}:
        if 1 <= size < n - 1:
            expected = expected_groups(difference, size)
            assert torch.equal(groups(student, difference[None], size)[0], expected), size


@pytest.mark.parametrize("kind", KINDS)
def test_rows_longer_than_16_bits(kind):
    difference = row(kind, 70_001)
    expected = expected_groups(difference, 16)
    assert torch.equal(groups(torch.zeros(1, 70_001), difference[None], 16)[0], expected)


def test_more_groups_than_16_bits():
    difference = torch.randn(200_000)
    expected = expected_groups(difference, 3)
    assert expected.max() > 1 << 16
    assert torch.equal(groups(torch.zeros(1, 200_000), difference[None], 3)[0], expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", ["Gaussian", "half tied", "integers", "Cauchy"])
def test_half_precision(kind, dtype):
    """Few different errors, so that most are tied."""
    student, teacher = torch.randn(1, 5000).to(dtype), row(kind, 5000)[None].to(dtype)
    expected = expected_groups((teacher.float() - student.float())[0], 16)
    assert torch.equal(groups(student, teacher, 16)[0], expected)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_non_finite_errors_come_last(bad):
    difference = torch.randn(1000)
    difference[::7] = bad
    expected = expected_groups(difference, 10)
    assert torch.equal(groups(torch.zeros(1, 1000), difference[None], 10)[0], expected)
