import math

import pytest
import torch
from accelerate import Accelerator

from liftplace.train import Learner, NonFiniteError, Objective
from liftplace.train.models import load_model, predict
from tests.train.tiny import assert_same_weights, config_for, process, tiny_unet


def learner(objective=None, **settings) -> Learner:
    config = config_for("unused", lr_warmup_steps=0, **settings)
    made = Learner(tiny_unet(seed=1), objective or Objective("none"), config)
    made.prepare(Accelerator(step_scheduler_with_optimizer=False))
    return made


def batch_of(images):
    number, noise = process().draw(images.shape, torch.Generator().manual_seed(0))
    return process().noise_images(images, number, noise)


@pytest.fixture
def batch(digits):
    return batch_of(digits.images(range(0, 4000, 500)))


def test_loss_falls_on_one_batch(batch):
    trained = learner(use_ema=False)
    losses = []
    for step in range(1, 13):
        trained.accumulate(batch, None)
        losses.append(trained.update(step)["loss"].item())
    assert losses[-1] < 0.7 * losses[0]


def test_update_follows_adamw(batch):
    trained = learner(use_ema=False, lr_scheduler="constant", max_grad_norm=0.0)
    by_hand = tiny_unet(seed=1).train()
    optimizer = torch.optim.AdamW(
        by_hand.parameters(), lr=1e-2, betas=(0.95, 0.999), weight_decay=1e-6, eps=1e-8
    )
    for step in (1, 2):
        trained.accumulate(batch, None)
        trained.update(step)
        output = predict(by_hand, batch.noisy, batch.timesteps)
        torch.nn.functional.mse_loss(output, batch.target).backward()
        optimizer.step()
        optimizer.zero_grad()
    assert_same_weights(trained.model, by_hand)


def test_two_halves_give_the_gradient_of_the_whole(digits):
    images = digits.images(range(0, 4000, 500))
    whole, halves = learner(), learner()
    batch = batch_of(images)
    whole.accumulate(batch, None)
    for part in (slice(0, 4), slice(4, 8)):
        piece = type(batch)(batch.noisy[part], batch.timesteps[part], batch.target[part])
        halves.accumulate(piece, None, share=0.5, last=part.stop == 8)
    for one, other in zip(whole.parameters, halves.parameters, strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(whole.update(1)["loss"], halves.update(1)["loss"])


def test_gradients_are_clipped_and_the_norm_is_the_one_before(batch):
    trained = learner(max_grad_norm=1e-3)
    trained.accumulate(batch, None)
    square = sum(weight.grad.square().sum() for weight in trained.parameters)
    seen = []
    trained.optimizer.optimizer.register_step_pre_hook(
        lambda *_: seen.append(math.sqrt(sum(w.grad.square().sum() for w in trained.parameters)))
    )
    norm = trained.update(1)["gradient_norm"].item()
    assert norm == pytest.approx(square.sqrt().item(), rel=1e-4)
    assert seen == [pytest.approx(1e-3, rel=1e-3)]


def test_average_is_used_where_the_model_goes_out(batch, tmp_path):
    trained = learner(use_ema=True)
    for step in (1, 2, 3):
        trained.accumulate(batch, None)
        trained.update(step)
    raw = {name: weight.clone() for name, weight in trained.model.state_dict().items()}
    trained.save(tmp_path, process())
    saved = load_model(tmp_path).model
    shadow = dict(zip([n for n, _ in saved.named_parameters()], trained.ema.shadow_params,
                      strict=True))  # fmt: skip
    for name, weight in saved.named_parameters():
        assert torch.equal(weight, shadow[name])
    assert not torch.equal(saved.conv_in.weight, raw["conv_in.weight"])
    for name, weight in trained.model.state_dict().items():
        assert torch.equal(weight, raw[name])


def test_first_bad_step_is_remembered_with_its_cause(batch):
    trained = learner(Objective("place"))
    answer = torch.randn_like(batch.noisy)
    for step, teacher in ((1, answer), (2, answer * torch.nan), (3, answer)):
        trained.accumulate(batch, teacher)
        trained.update(step)
    with pytest.raises(NonFiniteError, match="^step 2: coarse of student is not finite$"):
        trained.check_finite()


def test_bad_gradient_of_a_good_loss(batch):
    trained = learner()
    trained.parameters[0].register_hook(lambda gradient: gradient * torch.inf)
    trained.accumulate(batch, None)
    trained.update(1)
    with pytest.raises(NonFiniteError, match="^step 1: gradient_norm of student"):
        trained.check_finite()


@pytest.mark.parametrize("where", ["model", "average"])
def test_bad_weight(batch, where):
    trained = learner(use_ema=True)
    weights = trained.parameters if where == "model" else trained.ema.shadow_params
    trained.check_weights_finite(1)
    weights[-1].data.view(-1)[0] = torch.nan
    with pytest.raises(NonFiniteError, match="step 4: a weight of student is not finite"):
        trained.check_weights_finite(4)


def test_bfloat16_trains_float32_weights(batch):
    config = config_for("unused", lr_warmup_steps=0)
    trained = Learner(tiny_unet(seed=1), Objective("place"), config)
    trained.prepare(Accelerator(mixed_precision="bf16", step_scheduler_with_optimizer=False))
    trained.accumulate(batch, torch.randn_like(batch.noisy).bfloat16())
    metrics = trained.update(1)
    trained.check_finite()
    assert all(value.dtype == torch.float32 for value in metrics.values())
    assert trained.parameters[0].dtype == torch.float32
    other = learner(Objective("place"))
    other.accumulate(batch, torch.randn_like(batch.noisy))
    assert other.update(1)["loss"] != metrics["loss"]
