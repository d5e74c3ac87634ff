from copy import deepcopy

import numpy as np
import pytest
import torch

from liftplace import lift_loss, place_loss
from liftplace.analyze.model_errors import identity_gap, measure_errors, spread_timesteps
from liftplace.common.errors import NonFiniteError
from liftplace.evaluate.sampling import initial_noise
from liftplace.families import family_of_model
from liftplace.models.loading import predict
from liftplace.models.noise import NoiseProcess
from liftplace.models.shrink import shrink
from tests.families.tiny import TINY, tiny_model
from tests.train.tiny import tiny_unet

NUMBERS = (50, 500, 950)


@pytest.fixture(scope="module")
def teacher():
    return tiny_unet(in_channels=3, out_channels=3).eval()


@pytest.fixture(scope="module")
def student(teacher):
    return shrink(teacher.config, (4, 4), seed=2).eval()


@pytest.fixture(scope="module")
def latents():
    return torch.rand(5, 3, 8, 8, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.fixture(params=["epsilon", "flow"])
def process(request):
    return NoiseProcess.new(request.param)


def measure(student, teacher, process, latents, **options):
    options = {"numbers": NUMBERS, "seed": 3, "description": None} | options
    return measure_errors({"s": student}, teacher, process, latents, **options)["s"]


@torch.no_grad()
def outputs(student, teacher, process, latents, number):
    noise = initial_noise(len(latents), (3, 8, 8), 3)
    batch = process.noise_images(latents, torch.full((len(latents),), number), noise)
    return [predict(x, batch.noisy, batch.timesteps).double() for x in (student, teacher)]


@pytest.mark.parametrize("scope, length", [("channel", 64), ("sample", 192)])
def test_errors_are_those_of_numpys_fits(student, teacher, process, latents, scope, length):
    errors = measure(student, teacher, process, latents, scope=scope, batch_size=2)
    s, t = (x.reshape(-1, length).numpy() for x in outputs(student, teacher, process, latents, 500))
    lines = np.array([np.polyfit(a, b, 1) for a, b in zip(s, t, strict=True)])
    fitted = lines[:, :1] * s + lines[:, 1:]
    assert errors.power[1].item() == pytest.approx((t**2).mean(), rel=1e-5)
    assert errors.total[1].item() == pytest.approx(((t - s) ** 2).mean(), rel=1e-5)
    assert errors.coarse[1].item() == pytest.approx(((fitted - s) ** 2).mean(), rel=1e-5)
    assert errors.fine[1].item() == pytest.approx(((fitted - t) ** 2).mean(), rel=1e-5)
    slopes = lines[:, 0].reshape(5, -1)  # (images, channels)
    np.testing.assert_allclose(
        errors.slope[1], np.quantile(slopes, (0.1, 0.5, 0.9), axis=0).T, rtol=1e-3, atol=1e-5
    )
    intercepts = lines[:, 1].reshape(5, -1)
    np.testing.assert_allclose(
        errors.intercept[1], np.quantile(intercepts, (0.1, 0.5, 0.9), axis=0).T, atol=1e-5
    )
    assert errors.identity_gap < 1e-12 and errors.num_images == 5


def test_place_and_the_weights_are_the_losses_of_all_images_at_once(
    student, teacher, process, latents
):
    errors = measure(student, teacher, process, latents, group_sizes=(4, 30), batch_size=2)
    for place, number in enumerate(NUMBERS):
        s, t = outputs(student, teacher, process, latents, number)
        for row, size in enumerate((4, 30)):
            fit = place_loss(s, t, group_size=size, return_fit=True)[1]
            assert errors.place_fine[row, place].item() == pytest.approx(fit.fine.item(), rel=1e-4)
            assert errors.weight[row, place].item() == pytest.approx(
                fit.weight.item(), rel=1e-3, abs=1e-3
            )
        lift = lift_loss(s, t, return_fit=True)[1]
        assert errors.lift_weight[place].item() == pytest.approx(
            lift.weight.item(), rel=1e-3, abs=1e-5
        )
    assert (errors.place_fine[0] < errors.place_fine[1]).all()
    assert (errors.place_fine[1] < errors.fine).all()


def test_a_student_close_to_its_teacher_has_a_weight_between_0_and_1(teacher, latents):
    student = deepcopy(teacher)
    with torch.no_grad():
        student.conv_out.bias.add_(0.25)
    errors = measure(student, teacher, NoiseProcess.new("epsilon"), latents, batch_size=2)
    torch.testing.assert_close(
        errors.lift_weight, torch.full((3,), 0.75).double(), atol=1e-3, rtol=0
    )
    torch.testing.assert_close(errors.coarse, torch.full((3,), 0.0625).double())
    assert (errors.fine < 1e-10).all()
    torch.testing.assert_close(errors.slope, torch.ones(3, 3, 3).double(), atol=1e-4, rtol=0)
    torch.testing.assert_close(
        errors.intercept, torch.full((3, 3, 3), -0.25).double(), atol=1e-4, rtol=0
    )


def test_a_student_equal_to_its_teacher_has_no_error(teacher, latents):
    errors = measure(teacher, teacher, NoiseProcess.new("epsilon"), latents)
    assert (errors.total == 0).all() and errors.identity_gap == 0
    assert (errors.fine < 1e-28).all()


@pytest.mark.parametrize("class_name", TINY)
def test_every_family_and_its_learned_variance(class_name):
    teacher, student = (tiny_model(class_name, seed).eval() for seed in (0, 1))
    family = family_of_model(teacher)
    noisy, _, conditions = family.example(teacher.config, batch=3, size=8)
    kind = "flow" if class_name.startswith(("SD3", "Flux")) else "epsilon"
    options = {"conditions": conditions, "numbers": (100, 800), "group_sizes": (16,)}
    options |= {"description": None}
    process = NoiseProcess.new(kind)
    whole = measure_errors({"s": student}, teacher, process, noisy, **options)["s"]
    parts = measure_errors({"s": student}, teacher, process, noisy, batch_size=2, **options)["s"]
    assert whole.slope.shape == (2, noisy.shape[1], 3) and (whole.total > 0).all()
    torch.testing.assert_close(whole.total, parts.total, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(whole.place_fine, parts.place_fine, rtol=1e-3, atol=1e-6)


def test_timesteps_ascend_in_noise_and_are_the_middles_of_equal_shares(student, teacher, latents):
    for kind in ("epsilon", "flow"):
        process = NoiseProcess.new(kind)
        numbers = spread_timesteps(process, 5)
        assert sorted(numbers) == (
            [100, 300, 500, 700, 900] if kind == "epsilon" else [99, 299, 499, 699, 899]
        )
        told = measure(student, teacher, process, latents, numbers=numbers).timesteps
        assert told.tolist() == [100, 300, 500, 700, 900] if kind == "epsilon" else sorted(told)


def test_output_that_is_not_finite_is_named(teacher, latents):
    broken = deepcopy(teacher)
    with torch.no_grad():
        broken.conv_out.bias[0] = torch.inf
    process = NoiseProcess.new("epsilon")
    with pytest.raises(NonFiniteError, match="s gives NaN or infinity at timestep 50"):
        measure(broken, teacher, process, latents)
    with pytest.raises(NonFiniteError, match="the teacher gives"):
        measure(teacher, broken, process, latents)


def test_parts_that_do_not_add_up_raise():
    one = torch.ones(2, dtype=torch.float64)
    assert identity_gap(one, 2 * one, one, one) == 0
    with pytest.raises(RuntimeError, match="do not add up"):
        identity_gap(one, 2 * one, one, one + 1e-6)
