"""The gradient from a table of groups, from the cache, and with group numbers of either width."""

import pytest
import torch

from liftplace._contract import Fitted, LossSum, Options
from liftplace.kernels.cuda import op
from liftplace.kernels.cuda.launch import backward_launch
from tests.kernels.harness import DTYPES, pair

from .harness import assert_agrees, run

SIZES = {
    False: [(2, 100, 16), (1, 601, 2), (5, 33, None)],
    True: [(2, 600, 16), (2, 5000, 16), (1, 5001, 5000), (3, 600, None)],
}


@pytest.mark.parametrize(
    "rows, n, size, table", [(*sizes, table) for table in SIZES for sizes in SIZES[table]]
)
@pytest.mark.parametrize("dtype", DTYPES)
def test_gradient(rows, n, size, table, dtype, device):
    assert (backward_launch(rows, n, -(-n // (size or n))).tiles > 0) == table
    assert_agrees(*pair(rows, n, device, dtype), size, grad_out=2.5)


@pytest.mark.parametrize("wide", [torch.int16, torch.int32])
@pytest.mark.parametrize("n", [600, 602])
def test_width_of_group_numbers(wide, n, device):
    """What only rows of more than 65,536 groups have, on a short one."""
    student, teacher = pair(2, n, device)
    actual = run(student, teacher, 16)
    one = torch.ones((), device=device)
    fitted = Fitted(actual.group.to(wide), actual.coef, actual.stats)
    grad = op.backward(student, teacher, fitted, one, LossSum())
    assert torch.equal(grad, actual.grad)


def test_the_loss_may_be_scaled_in_another_dtype(device):
    student, teacher = pair(2, 100, device)
    expected = run(student, teacher, 16, grad_out=0.5).grad
    _, fitted = op.forward(student, teacher, None, Options(16))
    half = torch.tensor(0.5, dtype=torch.float64, device=device)
    assert torch.equal(op.backward(student, teacher, fitted, half, LossSum()), expected)
