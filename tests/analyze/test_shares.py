import math
from dataclasses import replace

import pytest
import torch

from liftplace.analyze.shares import carry, coarse_share, half, moved_by
from tests.analyze.analyses import carried_of, errors_of


def test_errors_are_read_off_at_the_samplers_timesteps_and_carried_by_the_factor():
    errors = errors_of(0.1, steps=3)  # at 25, 500 and 975
    timesteps = torch.tensor([999.0, 500.0, 262.5], dtype=torch.float64)
    carried = carry(errors, timesteps, torch.tensor([100.0, 2.0, 3.0], dtype=torch.float64))
    between = (errors.coarse[0] + errors.coarse[1]) / 2
    expected = torch.stack([1e4 * errors.coarse[2], 4 * errors.coarse[1], 9 * between])
    torch.testing.assert_close(carried.coarse, expected)
    torch.testing.assert_close(carried.fine[0], 1e4 * errors.fine[2])


def test_shares_are_of_sums_over_a_half():
    errors = replace(
        errors_of(0.1, steps=3), timesteps=torch.tensor([100.0, 500.0, 900.0]),
        coarse=torch.tensor([1.0, 1.0, 6.0]), fine=torch.tensor([9.0, 5.0, 2.0]),
    )  # fmt: skip
    noisier, others = (half(errors, 500, side) for side in (True, False))
    assert noisier.tolist() == [False, False, True] and others.tolist() == [True, True, False]
    assert coarse_share(errors, noisier) == 0.75
    assert coarse_share(errors, others) == 2 / 16
    nothing = torch.zeros(3)
    assert math.isnan(coarse_share(replace(errors, coarse=nothing, fine=nothing), noisier))
    assert math.isnan(coarse_share(errors, torch.zeros(3, dtype=torch.bool)))


def test_steps_move_the_image_by_the_root_of_the_sum_of_squares():
    carried = carried_of(errors_of(0.1), steps=4)
    which = half(carried, 500, True)
    assert moved_by(carried.coarse, which) == pytest.approx(
        math.hypot(*carried.coarse[:2].sqrt().tolist())
    )
