from functools import partial

import numpy as np
import pytest
import torch

from liftplace.analyze.correction import corrected_by, regress
from liftplace.data.encoder import Encoder
from liftplace.evaluate.sampling import Sampler, denoise, sample_images
from liftplace.models.loading import load_model
from liftplace.models.noise import NoiseProcess
from tests.families.pipelines import tiny_pipeline
from tests.train.tiny import tiny_unet

SLOPES, INTERCEPTS = (0.5, -2.0, 3.0), (0.3, -0.1, 0.0)
RUN = {"num_samples": 3, "num_inference_steps": 3, "description": None}


def outputs(rows=5, channels=3):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, rows, channels, 6, 7, generator=generator)


@pytest.mark.parametrize("scope, axes", [("channel", (2, 3)), ("sample", (1, 2, 3))])
def test_regression_is_numpys(scope, axes):
    student, teacher = outputs()
    found = regress(student, teacher, scope)
    length = int(np.prod([student.shape[axis] for axis in axes]))
    rows = zip(student.reshape(-1, length), teacher.reshape(-1, length), strict=True)
    for row, (s, t) in enumerate(rows):
        slope, intercept = np.polyfit(s.double().numpy(), t.double().numpy(), 1)
        assert found.slope[row].item() == pytest.approx(slope, rel=1e-10)
        assert found.intercept[row].item() == pytest.approx(intercept, rel=1e-10)
        fitted = found.fitted.reshape(-1, length)[row]
        torch.testing.assert_close(fitted, intercept + slope * s.double())


def test_regression_of_a_constant_student_is_the_teachers_mean():
    student, teacher = torch.full((1, 1, 4, 4), 0.7), outputs()[0, :1, :1, :4, :4]
    found = regress(student, teacher)
    assert found.slope.item() == pytest.approx(0, abs=1e-12)
    torch.testing.assert_close(found.fitted, teacher.double().mean().expand(1, 1, 4, 4))


def affine_student(teacher):
    """Its output is the teacher's, scaled and shifted, each channel its own way."""
    student = type(teacher).from_config(teacher.config)
    student.load_state_dict(teacher.state_dict())
    with torch.no_grad():
        for channel, (slope, intercept) in enumerate(zip(SLOPES, INTERCEPTS, strict=True)):
            student.conv_out.weight[channel].mul_(slope)
            student.conv_out.bias[channel].mul_(slope).add_(intercept)
    return student.eval()


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "flow"])
def test_a_student_that_is_affine_in_its_teacher_is_corrected_to_it(prediction_type):
    teacher = tiny_unet(in_channels=3, out_channels=3).eval()
    student = affine_student(teacher)
    sample = partial(sample_images, scheduler=NoiseProcess.new(prediction_type).sampler(), **RUN)
    theirs = sample(teacher)
    assert not torch.allclose(sample(student), theirs, atol=1e-2)
    corrected = sample(student, denoise=corrected_by(teacher))
    torch.testing.assert_close(corrected, theirs, rtol=0, atol=1e-4)
    # One fit a sample cannot undo what differs by channel.
    assert not torch.allclose(
        sample(student, denoise=corrected_by(teacher, "sample")), theirs, atol=1e-2
    )


def test_each_branch_of_the_guidance_is_corrected(tmp_path):
    loaded = load_model(tiny_pipeline("UNet2DConditionModel", tmp_path))
    teacher = loaded.model.eval()
    student = type(teacher).from_config(teacher.config)
    student.load_state_dict(teacher.state_dict())
    with torch.no_grad():
        student.conv_out.weight.mul_(0.5)
        student.conv_out.bias.mul_(0.5).add_(0.3)
    sampler = Sampler(loaded.process(), Encoder(loaded))
    options = {"prompts": ["a cat", "a dog"], "guidance_scale": 4.0} | RUN
    theirs = sampler.sample(teacher, **options)
    assert not torch.allclose(sampler.sample(student, **options), theirs, atol=1e-2)
    corrected = sampler.sample(student, denoise=corrected_by(teacher), **options)
    torch.testing.assert_close(corrected, theirs, rtol=0, atol=1e-3)


def test_models_in_half_precision_are_asked_in_theirs():
    model = tiny_unet().eval()
    noisy, timesteps = torch.randn(2, 1, 8, 8), torch.tensor([10, 900])
    with torch.no_grad():
        whole = denoise(model, noisy, timesteps, {})
        half = denoise(model.to(torch.bfloat16), noisy, timesteps, {})
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, whole, rtol=0.1, atol=0.05)
