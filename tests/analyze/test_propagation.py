import math
from dataclasses import replace

import pytest
import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler

from liftplace.analyze.propagation import (
    coarse_share,
    factors_of_scheduler,
    in_half,
    moved_by,
    propagate,
    propagation_factors,
)
from liftplace.models.noise import NoiseProcess
from tests.analyze.analyses import carried_of, errors_of

SHAPE = (1, 1, 2, 2)
SIZE = 1.0  # of the error; all of it is linear


def scheduler_of(prediction_type, **changes):
    if prediction_type == "flow":
        return FlowMatchEulerDiscreteScheduler(**changes)
    return DDIMScheduler(prediction_type=prediction_type, **{"clip_sample": False} | changes)


def levels(scheduler, place, prediction_type):
    """alpha and sigma at a step."""
    if prediction_type == "flow":
        sigma = scheduler.sigmas[place].double()
        return 1 - sigma, sigma
    square = scheduler.alphas_cumprod[scheduler.timesteps[place]].double()
    return square.sqrt(), (1 - square).sqrt()


def output(prediction_type, noisy, noise, alpha, sigma):
    """What a model that predicts this noise, whatever it is shown, says; linear in `noisy`."""
    if prediction_type == "epsilon":
        return noise
    # Where there is noise alone, any image fits.
    image = (noisy - sigma * noise) / alpha if alpha > 0 else torch.full_like(noisy, 0.5)
    if prediction_type == "sample":
        return image
    if prediction_type == "v_prediction":
        return alpha * noise - sigma * image
    return noise - image


def final_image(prediction_type, steps, wrong_at=None, **changes):
    scheduler = scheduler_of(prediction_type, **changes)
    scheduler.set_timesteps(steps)
    generator = torch.Generator().manual_seed(0)
    noisy = torch.randn(SHAPE, generator=generator, dtype=torch.float64)
    for place, timestep in enumerate(scheduler.timesteps):
        noise = torch.randn(SHAPE, generator=generator, dtype=torch.float64)
        alpha, sigma = levels(scheduler, place, prediction_type)
        said = output(prediction_type, noisy, noise, alpha, sigma)
        error = SIZE if place == wrong_at else 0
        noisy = scheduler.step(said + error, timestep, noisy).prev_sample.double()
    return noisy


CASES = [
    ("epsilon", 10, {}),
    ("epsilon", 12, {"timestep_spacing": "trailing"}),  # 1000 / 12 is no whole number
    ("epsilon", 10, {"set_alpha_to_one": False, "steps_offset": 1}),
    ("v_prediction", 10, {"timestep_spacing": "trailing"}),
    ("v_prediction", 12, {"timestep_spacing": "trailing", "rescale_betas_zero_snr": True}),
    ("sample", 10, {}),
    ("flow", 9, {}),
    ("flow", 9, {"shift": 3.0}),
]


@pytest.mark.parametrize("prediction_type, steps, changes", CASES, ids=str)
def test_an_error_at_one_step_moves_the_image_by_the_factor(prediction_type, steps, changes):
    scheduler = scheduler_of(prediction_type, **changes)
    timesteps, factor = factors_of_scheduler(scheduler, prediction_type, steps)
    assert timesteps.tolist() == scheduler.timesteps.tolist() and factor.dtype == torch.float64
    right = final_image(prediction_type, steps, **changes)
    for place in range(steps):
        wrong = final_image(prediction_type, steps, wrong_at=place, **changes)
        moved = ((wrong - right) / SIZE).abs()
        torch.testing.assert_close(moved, factor[place].expand(SHAPE), rtol=2e-3, atol=1e-3)


def test_errors_of_noise_that_all_steps_share_add_up_to_the_first_lambda():
    scheduler = scheduler_of("epsilon")
    timesteps, factor = factors_of_scheduler(scheduler, "epsilon", 100)
    square = scheduler.alphas_cumprod[990].double()
    assert timesteps[0] == 990
    assert factor.sum().item() == pytest.approx(((1 - square) / square).sqrt().item(), rel=1e-6)
    assert factor.sum().item() == pytest.approx(144, abs=0.5)  # at t = 990 of the linear schedule


def test_one_error_is_carried_alike_whatever_is_predicted():
    scheduler = scheduler_of("epsilon")
    timesteps, noise = factors_of_scheduler(scheduler, "epsilon", 20)
    square = scheduler.alphas_cumprod[timesteps.long()].double()
    alpha, sigma = square.sqrt(), (1 - square).sqrt()
    for kind, share in {"v_prediction": alpha, "sample": alpha / sigma}.items():
        torch.testing.assert_close(
            factors_of_scheduler(scheduler_of(kind), kind, 20)[1], share * noise
        )


def test_the_process_gives_its_own_sampler():
    for kind in ("epsilon", "flow"):
        process = NoiseProcess.new(kind)
        timesteps, factor = propagation_factors(process, 8)
        expected = factors_of_scheduler(process.sampler(), kind, 8)
        assert torch.equal(timesteps, expected[0]) and torch.equal(factor, expected[1])


def test_timesteps_that_depend_on_the_size():
    config = {"_class_name": "FlowMatchEulerDiscreteScheduler", "use_dynamic_shifting": True}
    process = NoiseProcess(config)
    small, large = (propagation_factors(process, 4, size=size)[0] for size in (16, 128))
    assert (small[1:] < large[1:]).all()


def test_errors_are_read_off_at_the_samplers_timesteps_and_carried_by_the_factor():
    errors = errors_of(0.1, steps=3)  # at 25, 500 and 975
    timesteps = torch.tensor([999.0, 500.0, 262.5], dtype=torch.float64)
    carried = propagate(errors, timesteps, torch.tensor([100.0, 2.0, 3.0], dtype=torch.float64))
    between = (errors.coarse[0] + errors.coarse[1]) / 2
    expected = torch.stack([1e4 * errors.coarse[2], 4 * errors.coarse[1], 9 * between])
    torch.testing.assert_close(carried.coarse, expected)
    torch.testing.assert_close(carried.fine[0], 1e4 * errors.fine[2])


def test_shares_are_of_sums_over_a_half():
    errors = replace(
        errors_of(0.1, steps=3),
        timesteps=torch.tensor([100.0, 500.0, 900.0]),
        coarse=torch.tensor([1.0, 1.0, 6.0]),
        fine=torch.tensor([9.0, 5.0, 2.0]),
    )
    noisier, others = (in_half(errors, 500, side) for side in (True, False))
    assert noisier.tolist() == [False, False, True] and others.tolist() == [True, True, False]
    assert coarse_share(errors, noisier) == 0.75
    assert coarse_share(errors, others) == 2 / 16
    nothing = torch.zeros(3)
    assert math.isnan(coarse_share(replace(errors, coarse=nothing, fine=nothing), noisier))
    assert math.isnan(coarse_share(errors, torch.zeros(3, dtype=torch.bool)))


def test_steps_move_the_image_by_the_root_of_the_sum_of_squares():
    carried = carried_of(errors_of(0.1), steps=4)
    which = in_half(carried, 500, True)
    assert moved_by(carried.coarse, which) == pytest.approx(
        math.hypot(*carried.coarse[:2].sqrt().tolist())
    )
