"""Loss, terms and weight from partial sums."""

import pytest
import torch

from liftplace.kernels.combine import combine

BOTH = {"scale": 1.0, "with_coarse": True, "with_fine": True}


def _partial(programs: int, device: str, size: float = 1.0):
    return size * torch.rand(programs, 3, device=device)


@pytest.mark.parametrize("programs", [1, 2, 31, 32, 33, 1024, 1025, 5000])
def test_sums_every_program(programs, device):
    partial = _partial(programs, device)
    coarse, distance, fine = partial.double().sum(0) / 16_384
    loss, terms = combine(partial, count=16_384, weight=None, fixed=None, **BOTH)
    weight = 1 - distance.clamp(max=1)
    expected = torch.stack([coarse, fine, distance, weight])
    torch.testing.assert_close(terms.double(), expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(loss.double(), coarse + weight * fine, rtol=1e-6, atol=1e-6)


def test_the_adaptive_weight_stops_at_zero(device):
    loss, (coarse, _, distance, weight) = combine(
        _partial(3, device, 100.0), count=10, weight=None, fixed=None, **BOTH
    )
    assert distance > 1
    assert weight == 0
    assert loss == coarse


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_weight_on_the_device(dtype, device):
    weight = torch.tensor(0.25, device=device, dtype=dtype)
    partial = _partial(5, device)
    loss, terms = combine(partial, count=4, weight=weight, fixed=None, **BOTH)
    by_number = combine(partial, count=4, weight=None, fixed=0.25, **BOTH)
    assert torch.equal(loss, by_number[0]) and torch.equal(terms, by_number[1])
    torch.testing.assert_close(loss, terms[0] + 0.25 * terms[1])


@pytest.mark.parametrize("coarse, fine", [(True, True), (True, False), (False, True)])
def test_terms_and_scale(coarse, fine, device):
    partial = _partial(5, device)
    loss, terms = combine(
        partial, count=4, weight=None, fixed=0.5, scale=7.0, with_coarse=coarse, with_fine=fine
    )
    torch.testing.assert_close(loss, 7 * (coarse * terms[0] + 0.5 * fine * terms[1]))


@pytest.mark.parametrize("column", [0, 1, 2])
def test_nan_stays(column, device):
    partial = _partial(40, device)
    partial[33, column] = float("nan")
    loss, terms = combine(partial, count=4, weight=None, fixed=None, **BOTH)
    assert loss.isnan()
    assert terms[:3].isnan().tolist() == [column == 0, column == 2, column == 1]


def test_two_weights_are_refused(device):
    weight = torch.tensor(0.25, device=device)
    with pytest.raises(ValueError, match="fixed=0.5"):
        combine(_partial(2, device), count=4, weight=weight, fixed=0.5, **BOTH)
