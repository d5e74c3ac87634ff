import pytest
import torch

from liftplace.common.errors import UsageError
from liftplace.train import NoiseProcess
from liftplace.train.space import SpaceWeight

NUMBERS = torch.tensor([0, 100, 500, 900, 999])


def errors_in(space: str, process: NoiseProcess, step: float) -> torch.Tensor:
    """The squared change of a prediction's epsilon, v or x_0 when the prediction moves by `step`,
    float64, by timestep: from the definitions of what is predicted."""
    abar = process.scheduler.alphas_cumprod.double()[NUMBERS]
    alpha, sigma = abar.sqrt(), (1 - abar).sqrt()

    def all_of(prediction):
        x_t = 0.3  # any noisy input
        if process.prediction_type == "epsilon":
            noise = prediction
            clean = (x_t - sigma * noise) / alpha
        elif process.prediction_type == "sample":
            clean = prediction
            noise = (x_t - alpha * clean) / sigma
        else:
            clean, noise = alpha * x_t - sigma * prediction, sigma * x_t + alpha * prediction
        return {"epsilon": noise, "sample": clean, "v_prediction": alpha * noise - sigma * clean}

    before, after = (all_of(torch.full_like(alpha, x))[space] for x in (0.1, 0.1 + step))
    return (after - before).square()


@pytest.mark.parametrize("space", ["epsilon", "sample", "v_prediction"])
@pytest.mark.parametrize("prediction_type", ["epsilon", "sample", "v_prediction"])
def test_weights_are_what_an_error_amounts_to(prediction_type, space):
    process = NoiseProcess.new(prediction_type)
    images = torch.zeros(5, 1, 2, 2)
    batch = process.noise_images(images, NUMBERS, torch.ones_like(images))
    expected = errors_in(space, process, 1e-3) / 1e-6
    found = SpaceWeight(process, space, 1e9)(batch)
    torch.testing.assert_close(found.double(), expected, rtol=1e-3, atol=1e-9)
    capped = SpaceWeight(process, space, 2.0)(batch)
    torch.testing.assert_close(capped, found.clamp(max=2))


def test_flow_matching_has_the_clean_image_alone():
    process = NoiseProcess.new("flow")
    images = torch.zeros(5, 1, 2, 2)
    batch = process.noise_images(images, NUMBERS, torch.ones_like(images))
    # x_t = (1 - sigma) x + sigma n and v = n - x: x = x_t - sigma v
    expected = batch.noisy[:, 0, 0, 0].square()  # of x = 0 and n = 1, sigma itself
    torch.testing.assert_close(SpaceWeight(process, "sample", 100.0)(batch), expected)
    with pytest.raises(UsageError, match="kd_space v_prediction is of diffusion"):
        SpaceWeight(process, "v_prediction", 100.0)


def test_pure_noise_has_a_finite_weight():
    process = NoiseProcess({"prediction_type": "epsilon", "rescale_betas_zero_snr": True})
    images = torch.zeros(1, 1, 2, 2)
    batch = process.noise_images(images, torch.tensor([999]), images)
    assert SpaceWeight(process, "sample", 100.0)(batch).item() == 100
