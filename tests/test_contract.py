"""What implementations share: shapes, dtypes and the flat form of the options."""

import pytest
import torch

from liftplace import _dispatch
from liftplace._contract import LossSum, Options, group_dtype, group_number, new_fitted


def test_group_numbers_take_two_bytes_up_to_65536_groups():
    assert group_dtype(1 << 16) == torch.int16
    assert group_dtype((1 << 16) + 1) == torch.int32


def test_every_number_of_two_bytes_is_read():
    number = torch.arange(1 << 16)
    assert torch.equal(group_number(number.to(torch.int16)), number)
    assert torch.equal(group_number(number.to(torch.int32) + 5), number + 5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "options, n, groups, shape",
    [
        (Options(3), 8, 3, (2, 8)),
        (Options(3), 7, 2, (2, 7)),  # the last element alone is no group
        (Options(7), 7, 1, (0,)),
        (Options(3, with_groups=False), 8, 3, (0,)),
    ],
)
def test_shapes(options, n, groups, shape, dtype):
    student = torch.empty(2, n, dtype=torch.float16)
    group, coef, stats = new_fitted(student, student.to(dtype), options)
    assert group.shape == shape and group.dtype == torch.int16
    assert coef.shape == (6, 2, groups) and stats.shape == (4,)
    assert coef.dtype == stats.dtype == dtype


def test_flat_options_are_the_same_options():
    options = Options(5, 1e-3, True, 0.25, LossSum(True, False, 7), False)
    assert _dispatch._flat(options) == (0.25, 5, 1e-3, True, True, False, 7, False)
    assert _dispatch._options(*_dispatch._flat(options)) == options
