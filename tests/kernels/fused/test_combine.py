"""Loss, terms and weight from partial sums."""

import pytest
import torch

from liftplace._contract import LossSum, Options
from liftplace.kernels.fused.combine import combine

ADAPTIVE = Options(16)


def _partial(programs: int, device: str, size: float = 1.0):
    return size * torch.rand(programs, 3, device=device)


@pytest.mark.parametrize("programs", [1, 2, 31, 32, 33, 1024, 1025, 5000])
def test_sums_every_program(programs, device):
    partial = _partial(programs, device)
    coarse, deviation, fine = partial.double().sum(0) / 16_384
    loss, stats = combine(partial, 16_384, None, ADAPTIVE)
    weight = 1 - deviation.clamp(max=1)
    expected = torch.stack([coarse, fine, deviation, weight])
    torch.testing.assert_close(stats.double(), expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(loss.double(), coarse + weight * fine, rtol=1e-6, atol=1e-6)


def test_the_adaptive_weight_stops_at_zero(device):
    partial = _partial(3, device, 100.0)
    loss, (coarse, _, deviation, weight) = combine(partial, 10, None, ADAPTIVE)
    assert deviation > 1
    assert weight == 0
    assert loss == coarse


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_weight_on_the_device(dtype, device):
    weight = torch.tensor(0.25, device=device, dtype=dtype)
    partial = _partial(5, device)
    loss, stats = combine(partial, 4, weight, ADAPTIVE)
    by_number = combine(partial, 4, None, Options(16, fixed_weight=0.25))
    assert torch.equal(loss, by_number[0]) and torch.equal(stats, by_number[1])
    torch.testing.assert_close(loss, stats[0] + 0.25 * stats[1])


@pytest.mark.parametrize("coarse, fine", [(True, True), (True, False), (False, True)])
def test_terms_and_scale(coarse, fine, device):
    partial = _partial(5, device)
    options = Options(16, fixed_weight=0.5, loss_sum=LossSum(coarse, fine, 7))
    loss, stats = combine(partial, 4, None, options)
    torch.testing.assert_close(loss, 7 * (coarse * stats[0] + 0.5 * fine * stats[1]))


@pytest.mark.parametrize("column", [0, 1, 2])
def test_nan_stays(column, device):
    partial = _partial(40, device)
    partial[33, column] = float("nan")
    loss, stats = combine(partial, 4, None, ADAPTIVE)
    assert loss.isnan()
    assert stats[:3].isnan().tolist() == [column == 0, column == 2, column == 1]


def test_two_weights_are_refused(device):
    weight = torch.tensor(0.25, device=device)
    with pytest.raises(ValueError, match="fixed_weight=0.5"):
        combine(_partial(2, device), 4, weight, Options(16, fixed_weight=0.5))
