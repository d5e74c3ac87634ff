import pytest
import torch
import torch.nn.functional as F
from accelerate import Accelerator

from liftplace import place_loss
from liftplace.models.loading import predict
from liftplace.train import NonFiniteError, fit, new_trainers
from liftplace.train.diagnostics import MONITORED, NonFiniteMonitor, gradients_by_term
from liftplace.train.hooked_model import Teacher
from liftplace.train.run_folder import read_metrics
from liftplace.train.trainer import ModelTrainer
from tests.train.tiny import (
    Disturbed,
    assert_same_weights,
    checkpoints,
    config_for,
    encoder,
    process,
    run,
    spec_for,
    tiny_unet,
)

FINE = {name: torch.tensor(1.0) for name in MONITORED}
NAN, INF = torch.tensor(torch.nan), torch.tensor(torch.inf)


@pytest.fixture
def monitor():
    return NonFiniteMonitor(Accelerator(), "small")


def test_the_first_step_is_blamed_and_in_it_the_part_before_what_is_made_of_it(monitor):
    monitor.note(FINE, 1)
    monitor.check()
    monitor.note(FINE | {"loss": NAN, "coarse": INF, "gradient_norm": NAN}, 2)
    monitor.note(FINE | {"task": NAN}, 3)
    with pytest.raises(NonFiniteError, match="^step 2: coarse of small is not finite$"):
        monitor.check()


def test_metrics_that_a_trainer_has_not_or_that_nobody_watches_are_no_matter(monitor):
    monitor.note({"task": FINE["task"], "else": NAN}, 1)
    monitor.check()


def test_gradients_of_float16_may_overflow_because_the_scaler_skips_their_step(monitor):
    monitor._accelerator.scaler = torch.amp.GradScaler("cpu")
    monitor.note(FINE | {"gradient_norm": INF}, 1)
    monitor.check()
    monitor.note(FINE | {"task": INF}, 2)
    with pytest.raises(NonFiniteError, match="step 2: task"):
        monitor.check()


def make_nan(item):
    return {"images": item["images"] * torch.nan}


def test_non_finite_loss_stops_and_is_never_saved(tmp_path, digits):
    # Logged every 10 steps only, so the checkpoint of step 6 is what would save the NaN.
    with pytest.raises(
        NonFiniteError,
        match="^step 5: task of place is not finite; the last good checkpoint is .*/checkpoint-3$",
    ):
        run(tmp_path, Disturbed(digits, 5, make_nan), logging_steps=10)
    assert checkpoints(tmp_path) == ["checkpoint-3"]
    assert read_metrics_if_any(tmp_path) == []


def test_the_others_go_on_without_one_that_fails(tmp_path, digits):
    def trainers(config):
        specs = [spec_for(config, loss) for loss in ("none", "mse", "lift")]
        return new_trainers(specs, config)

    config = config_for(tmp_path / "all")
    spoilt, *rest = trainers(config)

    def spoil(item):
        spoilt.parameters[0].data.fill_(torch.nan)

    kinds = {"encoder": encoder(), "process": process(), "teacher": tiny_unet()}
    disturbed = Disturbed(digits, 3, spoil)
    failed = fit([spoilt, *rest], dataset=disturbed, config=config, keep_going=True, **kinds)
    assert list(failed) == ["none"]
    assert "step 3: task of none is not finite" in str(failed["none"])
    alone = config_for(tmp_path / "alone")
    _, *undisturbed = trainers(alone)
    assert fit(undisturbed, dataset=digits, config=alone, keep_going=True, **kinds) == {}
    for ours, theirs in zip(rest, undisturbed, strict=True):
        assert_same_weights(ours.model, theirs.model)
    lines = read_metrics(tmp_path / "all" / "metrics.jsonl")
    assert "none/task" in lines[1] and "none/task" not in lines[-1] and "mse/task" in lines[-1]


def test_nothing_goes_on_when_all_have_failed(tmp_path, digits):
    config = config_for(tmp_path)
    (trainer,) = new_trainers([spec_for(config, "none")], config)
    disturbed = Disturbed(digits, 2, make_nan)
    parts = {"dataset": disturbed, "encoder": encoder(), "process": process()}
    failed = fit([trainer], config=config, keep_going=True, **parts)
    assert list(failed) == ["none"]
    assert len(read_metrics(tmp_path / "metrics.jsonl")) <= 2
    assert checkpoints(tmp_path) == []


def read_metrics_if_any(folder):
    file = folder / "metrics.jsonl"
    return read_metrics(file) if file.exists() else []


def test_the_term_at_fault_is_named(tmp_path, digits):
    teacher = tiny_unet()
    torch.nn.init.constant_(teacher.conv_out.bias, torch.inf)
    with pytest.raises(
        NonFiniteError, match="^step 1: coarse of place .* last good checkpoint is none$"
    ):
        run(tmp_path, digits, teacher=teacher)


def test_average_that_is_not_finite_is_not_saved(tmp_path, digits):
    config = config_for(tmp_path)
    (trainer,) = new_trainers([spec_for(config, "none")], config)

    def spoil(item):
        trainer.ema.shadow_params[0].fill_(torch.nan)

    with pytest.raises(NonFiniteError, match="^step 3: a weight of none is not finite"):
        disturbed = Disturbed(digits, 2, spoil)
        fit([trainer], dataset=disturbed, encoder=encoder(), process=process(), config=config)
    assert checkpoints(tmp_path) == []


SEED = 5


@pytest.fixture
def batch(digits):
    images = digits.images(range(0, 4000, 1000))
    number, noise = process().draw(images.shape, torch.Generator().manual_seed(0))
    return process().noise_images(images, number, noise)


@pytest.fixture
def answer(batch):
    return Teacher(tiny_unet(), torch.device("cpu"))(batch)


def prepared(tmp_path, **changes):
    spec = spec_for(config_for(tmp_path), mse_weight=0.5, **changes)
    return ModelTrainer(spec, Accelerator(step_scheduler_with_optimizer=False))


def test_shares_are_those_of_gradients_taken_by_hand(tmp_path, batch, answer):
    trainer = prepared(tmp_path, kd_weight=0.7, weight=0.3)
    trainer.measure_gradients(batch, answer, seed=SEED)
    weights = [weight.detach().clone() for weight in trainer.parameters]
    trainer.accumulate(batch, answer)
    found = trainer.update(1)

    for weight, before in zip(trainer.parameters, weights, strict=True):
        weight.data.copy_(before)
    torch.manual_seed(SEED)
    output = predict(trainer.model.train(), batch.noisy, batch.timesteps)
    teacher = answer.output
    losses = {
        "task": F.mse_loss(output, batch.target),
        "coarse": 0.7 * place_loss(output, teacher, impl="reference", terms="coarse"),
        "fine": 0.7 * place_loss(output, teacher, impl="reference", terms="fine", weight=0.3),
        "mse": 0.5 * F.mse_loss(output, teacher),
    }
    weights = list(trainer.model.parameters())
    gradients = {
        name: torch.cat(
            [part.flatten() for part in torch.autograd.grad(loss, weights, retain_graph=True)]
        )
        for name, loss in losses.items()
    }
    whole = sum(gradients.values())
    for name, gradient in gradients.items():
        share = (gradient @ whole / (whole @ whole)).item()
        assert found[f"gradient_share/{name}"].item() == pytest.approx(share, rel=1e-3, abs=1e-5)
        norm = gradient.norm().item()
        assert found[f"gradient_norm/{name}"].item() == pytest.approx(norm, rel=1e-3)
    shares = [value.item() for name, value in found.items() if "gradient_share/" in name]
    assert len(shares) == 4 and sum(shares) == pytest.approx(1, abs=1e-4)


def test_a_look_changes_nothing(tmp_path, batch, answer):
    looking, plain = prepared(tmp_path), prepared(tmp_path)
    for step in (1, 2):
        looking.measure_gradients(batch, answer, seed=SEED)
        for trainer in (looking, plain):
            torch.manual_seed(step)
            trainer.accumulate(batch, answer)
        seen, others = looking.update(step), plain.update(step)
        assert {name for name in seen if name not in others} == {
            f"gradient_{kind}/{term}"
            for kind in ("norm", "share")
            for term in ("task", "coarse", "fine", "mse")
        }
        assert all(torch.equal(seen[name], value) for name, value in others.items())
    assert_same_weights(looking.model, plain.model)


def test_products_are_added_up_and_norms_are_without_the_scale():
    own = {"a": torch.tensor([3.0, 0.0]), "b": torch.tensor([-1.0, 2.0])}
    own[None] = own["a"] + own["b"]
    scratch = torch.empty(2)  # a buffer that each backward pass overwrites

    def gradient_of(term):
        return [scratch.copy_(8 * own[term]), None]

    # Two processes that have the same part each.
    found = gradients_by_term(["a", "b"], gradient_of, add_up=lambda parts: 2 * parts, scale=8.0)
    assert found["gradient_norm/a"].item() == pytest.approx(18**0.5)
    assert found["gradient_norm/b"].item() == pytest.approx(10**0.5)
    assert found["gradient_share/a"].item() == pytest.approx(6 / 8)
    assert found["gradient_share/b"].item() == pytest.approx(2 / 8)
