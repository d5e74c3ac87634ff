"""The streaming backward against the formula in float64, on coefficients that need no forward."""

import pytest
import torch

from liftplace._contract import Fitted, LossSum
from liftplace.kernels.fused.backward import backward
from tests.kernels.harness import DTYPES, close
from tests.oracle import GRAD_TOLERANCE


def _formula(student, teacher, group, coef, w, coarse, fine):
    slope_less_1, _, mean_s, mean_d, k, c = coef.double().gather(2, group.expand(6, -1, -1))
    slope = slope_less_1 + 1
    s, t = student.double(), teacher.double()
    ds, dt = s - mean_s, t - (mean_s + mean_d)
    grad = coarse * (k * (dt - 2 * slope * ds) - c)
    return (grad + fine * 2 * w * slope * (slope * ds - dt)) / s.numel()


def _assert_formula(rows, n, groups, group_dtype, device, dtypes=(torch.float32,) * 2, **wanted):
    student, teacher = (torch.randn(rows, n).to(device, dtype) for dtype in dtypes)
    coef = torch.randn(6, rows, groups).to(device)
    group = torch.randint(groups, (rows, n)).to(device)
    stats = torch.tensor([float("nan")] * 3 + [0.3], device=device)  # w alone is read
    fitted = Fitted(torch.empty(0) if group_dtype is None else group.to(group_dtype), coef, stats)
    loss_sum = LossSum(**wanted, scale=3)
    grad_out = torch.tensor(-2.5, device=device)
    actual = backward(student, teacher, fitted, grad_out, loss_sum)
    both = loss_sum.with_coarse, loss_sum.with_fine
    expected = -2.5 * 3.0 * _formula(student, teacher, group, coef, 0.3, *both)
    assert actual.dtype == dtypes[0]
    close("gradient", actual, expected, GRAD_TOLERANCE[dtypes[0]])


@pytest.mark.parametrize("rows, n", [(1, 1), (1, 16), (3, 5), (70, 33), (2, 1024), (3, 2500)])
@pytest.mark.parametrize("groups, group_dtype", [(1, None), (7, torch.int16), (7, torch.int32)])
def test_shapes(rows, n, groups, group_dtype, device):
    _assert_formula(rows, n, groups, group_dtype, device)


def test_sixteen_bits_are_unsigned(device):
    _assert_formula(2, 1000, 1 << 16, torch.int16, device)


def test_thirty_two_bits(device):
    _assert_formula(2, 1000, 100_000, torch.int32, device)


@pytest.mark.parametrize("coarse, fine", [(True, False), (False, True)])
@pytest.mark.parametrize("groups, group_dtype", [(1, None), (7, torch.int16)])
def test_terms(coarse, fine, groups, group_dtype, device):
    _assert_formula(3, 100, groups, group_dtype, device, with_coarse=coarse, with_fine=fine)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("teacher_dtype", DTYPES)
def test_dtypes(dtype, teacher_dtype, device):
    _assert_formula(3, 100, 7, torch.int16, device, (dtype, teacher_dtype))
