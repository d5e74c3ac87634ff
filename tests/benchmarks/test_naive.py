"""benchmarks/naive.py computes what the reference does."""

import pytest
import torch

from benchmarks import naive
from liftplace import lift_loss, place_loss, reference


def pair(device, shape=(2, 3, 8, 8)):
    """Errors of a row lie well apart, so that float32 and float64 sort alike."""
    n = shape[2] * shape[3]
    error = torch.stack([torch.randperm(n) for _ in range(shape[0] * shape[1])]) / n + 0.01
    sign = torch.randint(0, 2, error.shape) * 2 - 1
    teacher = torch.randn(shape)
    student = (teacher + (error * sign).view(shape)).to(device).requires_grad_()
    return student, teacher.to(device)


@pytest.mark.parametrize("stable", [False, True])
@pytest.mark.parametrize("group_size", [2, 16, 64])
def test_place_loss_agrees_with_the_float64_reference(device, group_size, stable):
    student, teacher = pair(device)
    wide = student.detach().double().requires_grad_()
    want = reference.place_loss(wide, teacher.double(), group_size=group_size)
    loss = naive.place_loss(student, teacher, group_size=group_size, stable=stable)
    agree(loss, student, want, wide)


def test_lift_loss_agrees_with_the_float64_reference(device):
    student, teacher = pair(device)
    wide = student.detach().double().requires_grad_()
    want = reference.lift_loss(wide, teacher.double())
    agree(naive.lift_loss(student, teacher), student, want, wide)


def test_place_loss_widens_16_bit_inputs():
    student, teacher = pair("cpu")
    narrow = student.detach().bfloat16().requires_grad_()
    loss = naive.place_loss(narrow, teacher.bfloat16(), stable=True)
    wide = narrow.detach().float().requires_grad_()
    want = naive.place_loss(wide, teacher.bfloat16().float(), stable=True)
    assert loss.dtype == torch.float32 and loss.equal(want)
    gradients = torch.autograd.grad(loss, narrow)[0], torch.autograd.grad(want, wide)[0]
    assert gradients[0].equal(gradients[1].bfloat16())


def test_place_loss_refuses_a_ragged_last_group():
    student, teacher = pair("cpu", (1, 1, 3, 7))
    with pytest.raises(ValueError, match="group_size=16 does not divide rows of 21"):
        naive.place_loss(student, teacher)


def agree(loss, student, want, wide):
    torch.testing.assert_close(loss.double(), want.double(), rtol=1e-5, atol=0)
    gradient, expected = torch.autograd.grad(loss, student)[0], torch.autograd.grad(want, wide)[0]
    torch.testing.assert_close(
        gradient.double(), expected.double(), rtol=0, atol=1e-5 * expected.abs().max().item()
    )


@pytest.mark.parametrize("loss", ["place", "lift"])
def test_a_training_run_sees_the_same_loss_and_gradient_at_every_step(loss):
    """Ours and the authors' formulation on one trajectory: the students that a run really has."""
    pytest.importorskip("diffusers")
    from liftplace.data import Digits
    from liftplace.models.loading import predict
    from liftplace.models.noise import NoiseProcess
    from tests.train.tiny import tiny_unet

    closed_form = {"place": place_loss, "lift": lift_loss}[loss]
    eager = {"place": naive.place_loss, "lift": naive.lift_loss}[loss]
    teacher, student = tiny_unet(), tiny_unet(seed=1, block_out_channels=(4, 4))
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-2)
    images, process = Digits(resolution=8), NoiseProcess.new("v_prediction")
    for step in range(25):
        generator = torch.Generator().manual_seed(step)
        clean = images.images(torch.randint(len(images), (8,), generator=generator))
        numbers, noise = process.draw(clean.shape, generator)
        batch = process.noise_images(clean, numbers, noise)
        with torch.no_grad():
            target = predict(teacher, batch.noisy, batch.timesteps)
        output = predict(student, batch.noisy, batch.timesteps)
        leaves = [output.detach().requires_grad_() for _ in range(2)]
        agree(closed_form(leaves[0], target), leaves[0], eager(leaves[1], target), leaves[1])
        (closed_form(output, target) + (output - batch.target).square().mean()).backward()
        optimizer.step()
        optimizer.zero_grad()
