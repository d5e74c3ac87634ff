import pytest
import torch
import torch.nn.functional as F
from accelerate import Accelerator

from liftplace import place_loss
from liftplace.models.loading import predict
from liftplace.train.shares import gradient_shares
from liftplace.train.teacher import Teacher
from tests.train.tiny import assert_same_weights, config_for, learner_for, process, tiny_unet

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
    learner = learner_for(config_for(tmp_path), mse_weight=0.5, **changes)
    learner.prepare(Accelerator(step_scheduler_with_optimizer=False))
    return learner


def test_shares_are_those_of_gradients_taken_by_hand(tmp_path, batch, answer):
    learner = prepared(tmp_path, kd_weight=0.7, weight=0.3)
    learner.share_out(batch, answer, seed=SEED)
    weights = [weight.detach().clone() for weight in learner.parameters]
    learner.accumulate(batch, answer)
    found = learner.update(1)

    for weight, before in zip(learner.parameters, weights, strict=True):
        weight.data.copy_(before)
    torch.manual_seed(SEED)
    output = predict(learner.model.train(), batch.noisy, batch.timesteps)
    teacher = answer.output
    losses = {
        "task": F.mse_loss(output, batch.target),
        "coarse": 0.7 * place_loss(output, teacher, impl="reference", terms="coarse"),
        "fine": 0.7 * place_loss(output, teacher, impl="reference", terms="fine", weight=0.3),
        "mse": 0.5 * F.mse_loss(output, teacher),
    }
    weights = list(learner.model.parameters())
    gradients = {
        name: torch.cat([
            part.flatten() for part in torch.autograd.grad(loss, weights, retain_graph=True)
        ])
        for name, loss in losses.items()
    }  # fmt: skip
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
        looking.share_out(batch, answer, seed=SEED)
        for learner in (looking, plain):
            torch.manual_seed(step)
            learner.accumulate(batch, answer)
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
    found = gradient_shares(["a", "b"], gradient_of, add_up=lambda parts: 2 * parts, scale=8.0)
    assert found["gradient_norm/a"].item() == pytest.approx(18**0.5)
    assert found["gradient_norm/b"].item() == pytest.approx(10**0.5)
    assert found["gradient_share/a"].item() == pytest.approx(6 / 8)
    assert found["gradient_share/b"].item() == pytest.approx(2 / 8)
