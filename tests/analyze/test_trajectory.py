from functools import partial

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler

from liftplace.analyze.trajectory import FitMoments, corrected_with, trajectory_fit
from liftplace.evaluate.sampling import denoise, initial_noise, sample_images
from liftplace.families import family_of_model
from liftplace.models.noise import NoiseProcess
from liftplace.models.shrink import shrink
from tests.analyze.test_correction import INTERCEPTS, SLOPES, affine_student
from tests.families.tiny import tiny_model
from tests.train.tiny import tiny_unet

RUN = {"num_samples": 5, "num_inference_steps": 3, "seed": 4, "batch_size": 2, "description": None}


@pytest.fixture(scope="module")
def teacher():
    return tiny_unet(in_channels=3, out_channels=3).eval()


@pytest.fixture(scope="module")
def student(teacher):
    return shrink(teacher.config, (4, 4), seed=2).eval()


@torch.no_grad()
def test_one_fit_a_step_and_channel_is_numpys_over_all_samples_and_pixels(teacher, student):
    scheduler = NoiseProcess.new("epsilon").sampler()
    fit = trajectory_fit(teacher, student, scheduler, **RUN)
    scheduler.set_timesteps(3)
    assert fit.timesteps.tolist() == scheduler.timesteps.tolist()
    assert fit.slope.shape == fit.intercept.shape == (3, 3) and fit.slope.dtype == torch.float64
    noisy = initial_noise(5, (3, 8, 8), 4)
    for place, timestep in enumerate(scheduler.timesteps):
        s, t = (denoise(model, noisy, timestep.expand(5), {}) for model in (student, teacher))
        for channel in range(3):
            x, y = (each[:, channel].double().flatten().numpy() for each in (s, t))
            slope, intercept = np.polyfit(x, y, 1)
            assert fit.slope[place, channel].item() == pytest.approx(slope, rel=1e-4, abs=1e-6)
            found = fit.intercept[place, channel].item()
            assert found == pytest.approx(intercept, rel=1e-4, abs=1e-6)
        noisy = scheduler.step(t, timestep, noisy).prev_sample  # the teacher's path


def test_a_fit_does_not_depend_on_the_batches(teacher, student):
    fit = partial(trajectory_fit, teacher, student, NoiseProcess.new("epsilon").sampler())
    whole, parts = fit(**RUN | {"batch_size": 5}), fit(**RUN)
    torch.testing.assert_close(parts.slope, whole.slope, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(parts.intercept, whole.intercept, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "flow"])
def test_a_student_that_is_affine_in_its_teacher_is_corrected_to_it(teacher, prediction_type):
    student = affine_student(teacher).train()
    scheduler = NoiseProcess.new(prediction_type).sampler()
    fit = trajectory_fit(teacher, student, scheduler, **RUN)
    assert student.training
    slopes = (1 / torch.tensor(SLOPES, dtype=torch.float64)).expand(3, 3)
    torch.testing.assert_close(fit.slope, slopes, rtol=1e-4, atol=0)
    intercepts = -torch.tensor(INTERCEPTS, dtype=torch.float64) * slopes
    torch.testing.assert_close(fit.intercept, intercepts, rtol=1e-3, atol=1e-5)
    theirs = sample_images(teacher, scheduler, **RUN)
    assert not torch.allclose(sample_images(student, scheduler, **RUN), theirs, atol=1e-2)
    corrected = sample_images(student, scheduler, denoise=corrected_with(fit), **RUN)
    torch.testing.assert_close(corrected, theirs, rtol=0, atol=1e-4)


def test_models_with_conditions_and_a_learned_variance():
    teacher, student = (tiny_model("DiTTransformer2DModel", seed).eval() for seed in (0, 1))
    _, _, conditions = family_of_model(teacher).example(teacher.config, batch=5, size=8)
    options = RUN | {"conditions": conditions}
    scheduler = NoiseProcess.new("epsilon").sampler()
    fit = trajectory_fit(teacher, student, scheduler, **options)
    plain = sample_images(student, scheduler, **options)
    corrected = sample_images(student, scheduler, denoise=corrected_with(fit), **options)
    assert corrected.shape == plain.shape and not torch.equal(corrected, plain)


def test_another_sampler_than_the_fits_is_refused(teacher, student):
    scheduler = DDIMScheduler(timestep_spacing="trailing")
    fit = trajectory_fit(teacher, student, scheduler, **RUN)
    with pytest.raises(ValueError, match="no timestep 749, only 999, 666, 332: sample"):
        options = RUN | {"num_inference_steps": 4, "denoise": corrected_with(fit)}
        sample_images(student, scheduler, **options)


def test_moments_are_exact_far_from_zero_and_of_a_constant_student():
    generator = torch.Generator().manual_seed(0)
    s = 1e6 + torch.randn(4, 2, 6, 6, generator=generator, dtype=torch.float64)
    t = 3 * s - 5
    s[:, 1] = 0.7
    moments = FitMoments()
    for part in (slice(0, 1), slice(1, 4)):
        moments.add(10.0, s[part], t[part])
    fit = moments.fit()
    assert fit.slope[0].tolist() == pytest.approx([3.0, 0.0])
    means = [-5.0, t[:, 1].mean().item()]
    assert fit.intercept[0].tolist() == pytest.approx(means, rel=1e-6, abs=1e-2)


def test_tables_of_moments_add_up():
    generator = torch.Generator().manual_seed(0)
    s, t = torch.randn(2, 4, 2, 6, 6, generator=generator)
    whole, parts, joined = FitMoments(), [FitMoments(), FitMoments()], FitMoments()
    for timestep in (900.0, 100.0):
        whole.add(timestep, s, t)
        parts[0].add(timestep, s[:1], t[:1])
        parts[1].add(timestep, s[1:], t[1:])
    for part in parts:
        joined.add_table(part.table())
    assert joined.fit().timesteps.tolist() == [900, 100]
    torch.testing.assert_close(joined.fit().slope, whole.fit().slope)
    torch.testing.assert_close(joined.fit().intercept, whole.fit().intercept)
