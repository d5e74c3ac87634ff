import math
from dataclasses import replace

import pytest
import torch
from accelerate import Accelerator

from liftplace.families import families
from liftplace.models.loading import load_model, predict
from liftplace.train import ModelTrainer, NonFiniteError, Objective, TrainerSpec
from liftplace.train.checkpoint import Checkpoints
from liftplace.train.features import NO_FEATURES, choose_pairs, match_features
from liftplace.train.hooked_model import ModelOutput, Teacher
from liftplace.train.optimizer import new_optimizer, new_schedule
from liftplace.train.vlb import VLBLoss
from tests.families.tiny import tiny_model
from tests.train.tiny import assert_same_weights, config_for, process, tiny_unet


def trainer(objective=None, model=None, match=NO_FEATURES, vlb=None, **settings) -> ModelTrainer:
    config = config_for("unused", lr_warmup_steps=0, **settings)
    model, objective = model or tiny_unet(seed=1), objective or Objective("none")
    spec = TrainerSpec(model, objective, config, match=match, vlb=vlb)
    return ModelTrainer(spec, Accelerator(step_scheduler_with_optimizer=False))


def batch_of(images):
    number, noise = process().draw(images.shape, torch.Generator().manual_seed(0))
    return process().noise_images(images, number, noise)


@pytest.fixture
def batch(digits):
    return batch_of(digits.images(range(0, 4000, 500)))


def test_loss_falls_on_one_batch(batch):
    trained = trainer(use_ema=False)
    losses = []
    for step in range(1, 13):
        trained.accumulate(batch, None)
        losses.append(trained.update(step)["loss"].item())
    assert losses[-1] < 0.7 * losses[0]


def test_update_follows_adamw(batch):
    trained = trainer(use_ema=False, lr_scheduler="constant", max_grad_norm=0.0)
    by_hand = tiny_unet(seed=1).train()
    optimizer = torch.optim.AdamW(
        by_hand.parameters(), lr=1e-2, betas=(0.95, 0.999), weight_decay=1e-6, eps=1e-8, fused=True
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
    whole, halves = trainer(), trainer()
    batch = batch_of(images)
    whole.accumulate(batch, None)
    for part in (slice(0, 4), slice(4, 8)):
        piece = type(batch)(batch.noisy[part], batch.timesteps[part], batch.target[part])
        halves.accumulate(piece, None, share=0.5, sync_gradients=part.stop == 8)
    for one, other in zip(whole.parameters, halves.parameters, strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(whole.update(1)["loss"], halves.update(1)["loss"])


@pytest.mark.parametrize(("kd_min_timestep", "learns"), [(0.0, True), (999.5, False)])
def test_the_batch_s_timesteps_decide_what_is_distilled(batch, kd_min_timestep, learns):
    objective = Objective("mse", task_weight=0.0, kd_min_timestep=kd_min_timestep)
    trained = trainer(objective)
    trained.accumulate(batch, ModelOutput(torch.zeros_like(batch.target)))
    assert (trained.update(1)["gradient_norm"].item() > 0) == learns


def test_gradients_are_clipped_and_the_norm_is_the_one_before(batch):
    trained = trainer(max_grad_norm=1e-3)
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
    trained = trainer(use_ema=True)
    for step in (1, 2, 3):
        trained.accumulate(batch, None)
        trained.update(step)
    raw = {name: weight.clone() for name, weight in trained.model.state_dict().items()}
    trained.save(tmp_path, process())
    saved = load_model(tmp_path).model
    for weight, shadow in zip(saved.parameters(), trained.ema.shadow_params, strict=True):
        assert torch.equal(weight, shadow)
    assert not torch.equal(saved.conv_in.weight, raw["conv_in.weight"])
    for name, weight in trained.model.state_dict().items():
        assert torch.equal(weight, raw[name])


def test_first_bad_step_is_remembered_with_its_cause(batch):
    trained = trainer(Objective("place"))
    answer = torch.randn_like(batch.noisy)
    for step, teacher in ((1, answer), (2, answer * torch.nan), (3, answer)):
        trained.accumulate(batch, ModelOutput(teacher))
        trained.update(step)
    with pytest.raises(NonFiniteError, match="^step 2: coarse of student is not finite$"):
        trained.check_finite()


def test_bad_gradient_of_a_good_loss(batch):
    trained = trainer()
    trained.parameters[0].register_hook(lambda gradient: gradient * torch.inf)
    trained.accumulate(batch, None)
    trained.update(1)
    with pytest.raises(NonFiniteError, match="^step 1: gradient_norm of student"):
        trained.check_finite()


@pytest.mark.parametrize("where", ["model", "average"])
def test_bad_weight(batch, where):
    trained = trainer(use_ema=True)
    weights = trained.parameters if where == "model" else trained.ema.shadow_params
    trained.check_weights_finite(1)
    weights[-1].data.view(-1)[0] = torch.nan
    with pytest.raises(NonFiniteError, match="step 4: a weight of student is not finite"):
        trained.check_weights_finite(4)


def test_bfloat16_trains_float32_weights(batch):
    config = config_for("unused", lr_warmup_steps=0)
    accelerator = Accelerator(mixed_precision="bf16", step_scheduler_with_optimizer=False)
    trained = ModelTrainer(TrainerSpec(tiny_unet(seed=1), Objective("place"), config), accelerator)
    trained.accumulate(batch, ModelOutput(torch.randn_like(batch.noisy).bfloat16()))
    metrics = trained.update(1)
    trained.check_finite()
    assert all(value.dtype == torch.float32 for value in metrics.values())
    assert trained.parameters[0].dtype == torch.float32
    other = trainer(Objective("place"))
    other.accumulate(batch, ModelOutput(torch.randn_like(batch.noisy)))
    assert other.update(1)["loss"] != metrics["loss"]


def with_features(**settings):
    """A narrow student whose blocks are compared with a teacher's, and that teacher."""
    student, teacher = tiny_unet(seed=1, block_out_channels=(4, 4)), tiny_unet()
    pairs = choose_pairs(student, teacher)
    match = match_features(student, teacher, pairs, seed=0, always=False)
    made = trainer(Objective("mse", feature_weight=0.5), student, match, **settings)
    return made, Teacher(teacher, torch.device("cpu"), blocks=made.teacher_blocks)


def test_adapters_are_trained_with_the_student(batch):
    trained, teacher = with_features(use_ema=True)
    before = [weight.clone() for weight in trained.parameters]
    features = []
    for step in range(1, 13):
        trained.accumulate(batch, teacher(batch))
        features.append(trained.update(step)["feature"].item())
    assert features[-1] < 0.7 * features[0]
    for weight, was in zip(trained.parameters, before, strict=True):
        assert not torch.equal(weight, was)
    adapters = list(trained.module.adapters.parameters())
    assert len(adapters) == 2 * len(trained.module.pairs) == 10
    assert len(trained.model_parameters) == len(trained.ema.shadow_params)
    assert len(trained.parameters) == len(trained.model_parameters) + len(adapters)
    trained.check_finite()


def test_adapters_are_checkpointed_and_not_saved(batch, tmp_path):
    one, teacher = with_features()
    one.accumulate(batch, teacher(batch))
    one.update(1)
    Checkpoints(tmp_path / "run").save(one.accelerator, [one], 1)
    other, _ = with_features()
    for weight in other.parameters:
        torch.nn.init.zeros_(weight)
    Checkpoints(tmp_path / "run").load(tmp_path / "run/checkpoint-1", other.accelerator, [other])
    assert_same_weights(one.module, other.module)
    one.save(tmp_path / "result", process())
    saved = load_model(tmp_path / "result").model
    assert saved.state_dict().keys() == tiny_unet().state_dict().keys()


def test_an_adapter_that_is_not_finite_stops_the_run(batch):
    trained, _ = with_features()
    trained.module.adapters[0].weight.data[0] = torch.nan
    with pytest.raises(NonFiniteError, match="step 2: a weight of student is not finite"):
        trained.check_weights_finite(2)


def test_a_learned_variance_is_trained():
    model = tiny_model("DiTTransformer2DModel")
    noisy, _, conditions = families()["DiTTransformer2DModel"].example(model.config, batch=2)
    noised = process().noise_images(noisy, torch.tensor([0, 300]), torch.randn_like(noisy))
    noised = replace(noised, conditions=conditions)
    trained = trainer(Objective("none"), model, vlb=VLBLoss(process()), use_ema=False)
    values = []
    for step in range(1, 13):
        trained.accumulate(noised, None)
        values.append({name: value.item() for name, value in trained.update(step).items()})
    assert values[-1]["variance"] < 0.8 * values[0]["variance"]
    assert values[0]["loss"] == pytest.approx(values[0]["task"] + values[0]["variance"], rel=1e-5)


def test_learning_rate_falls_to_its_minimum():
    settings = {"learning_rate": 2e-4, "lr_min": 1e-4, "lr_scheduler": "cosine"}
    config = replace(config_for("unused", **settings), lr_warmup_steps=2, max_train_steps=10)
    schedule = new_schedule(new_optimizer(tiny_unet().parameters(), config), config, 10)
    rates = []
    for _ in range(11):
        rates.append(schedule.get_last_lr()[0])
        schedule.optimizer.step()
        schedule.step()
    assert rates[:3] == pytest.approx([0.0, 1e-4, 2e-4])
    assert rates[6] == pytest.approx(1.5e-4)
    assert rates[10] == pytest.approx(1e-4)


def test_average_with_a_constant_decay(batch):
    trained = trainer(use_ema=True, ema_max_decay=0.9, ema_min_decay=0.9)
    for step in (1, 2, 3):
        trained.accumulate(batch, None)
        trained.update(step)
        if step == 1:  # where the average starts
            average = [weight.detach().clone() for weight in trained.parameters]
        for mean, weight in zip(average, trained.parameters, strict=True):
            mean.lerp_(weight.detach(), 0.1)
    for mean, shadow in zip(average, trained.ema.shadow_params, strict=True):
        torch.testing.assert_close(mean, shadow)
