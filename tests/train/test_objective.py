import pytest
import torch
import torch.nn.functional as F

from liftplace import lift_loss, place_loss
from liftplace.train import Objective
from liftplace.train.objective import ramp

SHAPE = (3, 2, 4, 4)


@pytest.fixture
def outputs():
    generator = torch.Generator().manual_seed(0)
    student, target, teacher = (torch.randn(SHAPE, generator=generator) for _ in range(3))
    return student.requires_grad_(), target, teacher


def same(one, other):
    torch.testing.assert_close(one, other)


def test_without_distillation_the_teacher_is_not_needed(outputs):
    student, target, _ = outputs
    objective = Objective("none", task_weight=0.5)
    terms = objective(student, target)
    assert not objective.needs_teacher
    assert terms.keys() == {"loss", "task"}
    same(terms["loss"], 0.5 * F.mse_loss(student, target))


@pytest.mark.parametrize("reduction, factor", [("mean", 1), ("sum", 32)])
def test_output_distillation(outputs, reduction, factor):
    student, target, teacher = outputs
    terms = Objective("mse", 0.25, 2.0, reduction=reduction)(student, target, teacher)
    task, kd = F.mse_loss(student, target), F.mse_loss(student, teacher)
    same(terms["task"], factor * task.detach())
    same(terms["kd"], factor * kd.detach())
    same(terms["loss"], factor * (0.25 * task + 2.0 * kd))


@pytest.mark.parametrize("reduction, factor", [("mean", 1), ("sum", 32)])
@pytest.mark.parametrize("loss", ["none", "mse", "place"])
def test_sample_weights_are_the_task_loss_s(outputs, loss, reduction, factor):
    student, target, teacher = outputs
    weight = torch.tensor([0.0, 2.0, 1.0])
    objective = Objective(loss, 0.5, reduction=reduction)
    weighted = objective(student, target, teacher, sample_weight=weight)
    plain = objective(student, target, teacher)
    by_sample = (student - target).square().flatten(1).mean(1).detach()
    same(weighted["task"], factor * (weight * by_sample).mean())
    same(weighted["loss"] - plain["loss"], 0.5 * (weighted["task"] - plain["task"]))


def test_place_takes_its_options(outputs):
    student, target, teacher = outputs
    options = {"norm": "l2", "scope": "sample", "reduction": "sum", "eps": 1e-3, "terms": "both"}
    objective = Objective("place", 0.1, 0.9, group_size=5, weight=0.3, **options)
    terms = objective(student, target, teacher)
    kd, fit = place_loss(student, teacher, group_size=5, weight=0.3, return_fit=True, **options)
    same(terms["kd"], kd.detach())
    same(terms["coarse"], fit.coarse)
    same(terms["fine"], fit.fine)
    assert terms["weight"].item() == pytest.approx(0.3)
    same(terms["loss"], 0.1 * 32 * F.mse_loss(student, target) + 0.9 * kd)


def test_lift_has_one_group_a_row(outputs):
    student, target, teacher = outputs
    terms = Objective("lift", 0.0)(student, target, teacher)
    same(terms["loss"], lift_loss(student, teacher))


@pytest.mark.parametrize("loss", ["none", "mse", "lift", "place"])
def test_only_the_loss_has_a_gradient(outputs, loss):
    student, target, teacher = outputs
    terms = Objective(loss)(student, target, teacher)
    assert [name for name, term in terms.items() if term.requires_grad] == ["loss"]
    assert all(term.shape == () and term.dtype == torch.float32 for term in terms.values())
    (gradient,) = torch.autograd.grad(terms["loss"], student)
    assert gradient.isfinite().all() and gradient.any()


def test_ramps_go_from_nothing_to_all():
    assert [ramp("linear", x) for x in (0.0, 0.25, 1.0)] == [0.0, 0.25, 1.0]
    assert [ramp("cosine", x) for x in (0.0, 0.5, 1.0)] == pytest.approx([0.0, 0.5, 1.0])
    assert ramp("cosine", 0.25) < 0.25
    assert ramp("adaptive", 0.5) == "adaptive" and ramp(0.7, 0.1) == 0.7


def test_ramp_sets_the_weight(outputs):
    student, target, teacher = outputs
    terms = Objective("place", weight="linear")(student, target, teacher, progress=0.25)
    assert terms["weight"].item() == 0.25
