import pytest
import torch
import torch.nn.functional as F

from liftplace import lift_loss, place_loss
from liftplace.common.errors import UsageError
from liftplace.train import NoiseProcess, Objective
from liftplace.train.features import feature_loss
from liftplace.train.objective import HUBER, SpaceWeight, moment_loss, ramp

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
    assert terms.keys() == {"loss", "task", "weighted/task"}
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


@pytest.mark.parametrize("loss", ["mse", "lift", "place"])
def test_only_noisy_samples_are_distilled(outputs, loss):
    student, target, teacher = outputs
    objective = Objective(loss, 0.0, terms="coarse", group_size=8, kd_min_timestep=500.0)
    timesteps = torch.tensor([499, 500, 999])
    terms = objective(student, target, teacher, timesteps=timesteps)
    terms["loss"].backward()
    found, student.grad = student.grad, None

    noisy = Objective(loss, 0.0, terms="coarse", group_size=8)
    expected = noisy(student[1:], target[1:], teacher[1:])
    (2 / 3 * expected["loss"]).backward()  # the third sample has no error
    torch.testing.assert_close(terms["kd"], 2 / 3 * expected["kd"], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found, student.grad, rtol=1e-5, atol=1e-6)
    assert found[0].count_nonzero() == 0
    with pytest.raises(UsageError, match="kd_min_timestep is 500: give timesteps too"):
        objective(student, target, teacher)


def test_ramps_go_from_nothing_to_all():
    assert [ramp("linear", x) for x in (0.0, 0.25, 1.0)] == [0.0, 0.25, 1.0]
    assert [ramp("cosine", x) for x in (0.0, 0.5, 1.0)] == pytest.approx([0.0, 0.5, 1.0])
    assert ramp("cosine", 0.25) < 0.25
    assert ramp("adaptive", 0.5) == "adaptive" and ramp(0.7, 0.1) == 0.7


def test_ramp_sets_the_weight(outputs):
    student, target, teacher = outputs
    terms = Objective("place", weight="linear")(student, target, teacher, progress=0.25)
    assert terms["weight"].item() == 0.25


def hidden_pair(outputs):
    student, target, teacher = outputs
    return [(student[:, :1], teacher[:, :1]), (student[:, 1:], target[:, 1:])]


@pytest.mark.parametrize("loss", ["none", "mse", "lift", "place"])
@pytest.mark.parametrize("reduction, factor", [("mean", 1), ("sum", 16)])
def test_features_join_any_loss(outputs, loss, reduction, factor):
    student, target, teacher = outputs
    with_features = Objective(loss, feature_weight=0.25, reduction=reduction)
    assert with_features.needs_teacher
    terms = with_features(student, target, teacher, features=hidden_pair(outputs))
    plain = Objective(loss, reduction=reduction)(student, target, teacher)
    feature = F.mse_loss(student[:, :1], teacher[:, :1]) + F.mse_loss(student[:, 1:], target[:, 1:])
    same(terms["feature"], factor * feature.detach())
    same(terms["loss"], plain["loss"] + 0.25 * factor * feature)
    assert terms.keys() == {*plain, "feature", "weighted/feature"}
    assert [name for name, term in terms.items() if term.requires_grad] == ["loss"]


@pytest.mark.parametrize("loss", ["none", "lift", "place"])
@pytest.mark.parametrize("reduction, factor", [("mean", 1), ("sum", 32)])
def test_squared_error_to_the_teacher_beside_any_loss(outputs, loss, reduction, factor):
    student, target, teacher = outputs
    both = Objective(loss, mse_weight=0.25, reduction=reduction)
    assert both.needs_teacher
    terms = both(student, target, teacher)
    plain = Objective(loss, reduction=reduction)(student, target, teacher)
    error = factor * F.mse_loss(student, teacher)
    same(terms["mse"], error.detach())
    same(terms["loss"], plain["loss"] + 0.25 * error)
    assert terms.keys() == {*plain, "mse", "weighted/mse"}


def test_the_mask_reaches_the_features(outputs):
    student, target, teacher = outputs
    objective = Objective("none", feature_weight=1.0, feature_mask=1.0)
    masked = objective(student, target, teacher, features=hidden_pair(outputs))["feature"]
    same(masked, feature_loss(hidden_pair(outputs), mask=1.0).detach())


@pytest.mark.parametrize("reduction, factor", [("mean", 1), ("sum", 32)])
def test_a_learned_variance_is_part_of_the_task(outputs, reduction, factor):
    student, target, teacher = outputs
    variance = torch.tensor([1.0, 2.0, 6.0], requires_grad=True)
    objective = Objective("mse", 0.1, 0.9, reduction=reduction, variance_weight=0.5)
    terms = objective(student, target, teacher, variance=variance)
    plain = objective(student, target, teacher)
    same(terms["variance"], torch.tensor(3.0 * factor))
    same(terms["task"], plain["task"])
    same(terms["loss"], plain["loss"] + 0.1 * 0.5 * 3.0 * factor)
    (gradient,) = torch.autograd.grad(terms["loss"], variance)
    same(gradient, torch.full((3,), 0.05 * factor / 3))


@pytest.mark.parametrize("term", ["task", "kd", "mse", "feature"])
@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [4.0, 4.0, 4.0, 4.0]),
        ("linear", [4.0, 3.25, 2.5, 1.0]),
        ("cosine", [4.0, 3.5607, 2.5, 1.0]),
    ],
)
def test_weights_have_schedules(term, schedule, expected):
    given = {f"{term}_weight": 4.0, f"{term}_weight_schedule": schedule, f"{term}_weight_end": 1.0}
    objective = Objective(**given)
    weights = [objective.weight_of(term, progress) for progress in (0.0, 0.25, 0.5, 1.0)]
    assert weights == pytest.approx(expected, abs=1e-4)


def test_a_schedule_sets_the_share_of_its_term_only(outputs):
    student, target, teacher = outputs
    objective = Objective("mse", kd_weight=2.0, kd_weight_schedule="linear", kd_weight_end=0.0)
    task, kd = F.mse_loss(student, target), F.mse_loss(student, teacher)
    for progress in (0.0, 0.75, 1.0):
        terms = objective(student, target, teacher, progress=progress)
        same(terms["kd"], kd.detach())
        same(terms["loss"], task + 2.0 * (1 - progress) * kd)


def test_features_that_only_come_later_need_the_teacher():
    later = Objective("none", feature_weight_schedule="linear", feature_weight_end=1.0)
    assert later.has("feature") and later.needs_teacher
    assert not Objective("none", feature_weight_end=1.0).needs_teacher


EVERYTHING = {
    "task_weight": 0.5,
    "kd_weight": 2.0,
    "mse_weight": 0.25,
    "feature_weight": 0.1,
    "kd_weight_schedule": "linear",
    "kd_weight_end": 1.0,
}


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize(
    ("loss", "terms", "expected"),
    [
        ("none", "both", ()),
        ("mse", "both", ("kd",)),
        ("lift", "both", ("coarse", "fine")),
        ("place", "both", ("coarse", "fine")),
        ("place", "coarse", ("coarse",)),
        ("place", "fine", ("fine",)),
    ],
)
def test_the_loss_is_the_sum_of_its_weighted_terms(outputs, loss, terms, expected, reduction):
    student, target, teacher = outputs
    objective = Objective(loss, terms=terms, reduction=reduction, weight=0.3, **EVERYTHING)
    variance = torch.tensor([0.3, 0.1, 0.5])

    def call(only=None):
        return objective(
            student,
            target,
            teacher,
            variance=variance,
            features=hidden_pair(outputs),
            progress=0.5,
            only=only,
        )

    found = call()
    weighted = {k.removeprefix("weighted/"): v for k, v in found.items() if "weighted/" in k}
    assert objective.summands == ("task", *expected, "mse", "feature")
    assert set(weighted) == set(objective.summands)
    same(found["loss"].detach(), sum(weighted.values()))
    same(weighted["task"], 0.5 * (found["task"] + found["variance"]))
    same(weighted["mse"], 0.25 * found["mse"])
    if "fine" in expected:
        same(weighted["fine"], 1.5 * 0.3 * (32 if reduction == "sum" else 1) * found["fine"])

    # Each alone: its value, and gradients that add up to the whole one.
    (whole,) = torch.autograd.grad(found["loss"], student)
    alone = {name: call(name)["loss"] for name in weighted}
    for name, value in weighted.items():
        same(alone[name].detach(), value)
    same(sum(torch.autograd.grad(one, student)[0] for one in alone.values()), whole)


def test_the_fine_term_alone_keeps_the_adaptive_weight(outputs):
    student, target, teacher = outputs
    close = teacher + 0.1 * student  # so that w is neither 0 nor 1
    terms = Objective("place")(close, target, teacher, only="fine")
    assert 0 < terms["weight"] < 1
    same(terms["loss"].detach(), terms["weight"] * terms["fine"])


@pytest.mark.parametrize("reduction, factor", [("mean", 1), ("sum", 32)])
@pytest.mark.parametrize("loss", ["none", "mse", "place"])
def test_moments_join_any_loss(outputs, loss, reduction, factor):
    student, target, teacher = outputs
    objective = Objective(loss, moment_weight=0.25, reduction=reduction)
    terms = objective(student, target, teacher)
    plain = Objective(loss, reduction=reduction)(student, target, teacher)
    gap = (student.mean((2, 3)) - teacher.mean((2, 3))).abs().mean()
    same(terms["moment"], factor * gap.detach())
    same(terms["loss"], plain["loss"] + 0.25 * factor * gap)
    same(terms["weighted/moment"], 0.25 * terms["moment"])
    assert objective.needs_teacher and "moment" in objective.summands
    alone = objective(student, target, teacher, only="moment")["loss"]
    found, expected = (
        torch.autograd.grad(x, student, retain_graph=True)[0] for x in (alone, 0.25 * factor * gap)
    )
    same(found, expected)


@pytest.mark.parametrize("norm", ["l1", "l2", "huber"])
@pytest.mark.parametrize("moments", ["mean", "mean_std"])
def test_moments_by_norm(outputs, norm, moments):
    student, _, teacher = (x.double() for x in outputs)

    def phi(gap):
        if norm == "huber":
            return torch.where(gap.abs() < HUBER, gap**2 / (2 * HUBER), gap.abs() - HUBER / 2)
        return gap.abs() if norm == "l1" else gap**2

    expected = phi(student.mean((2, 3)) - teacher.mean((2, 3)))
    if moments == "mean_std":
        expected = expected + phi(student.std((2, 3), False) - teacher.std((2, 3), False))
    found = moment_loss(student.float(), teacher.float(), norm=norm, moments=moments)
    same(found.double(), expected.mean())


def test_moments_of_constant_rows_have_a_finite_gradient():
    student = torch.zeros(2, 1, 4, 4, requires_grad=True)
    moment_loss(student, torch.ones(2, 1, 4, 4), moments="mean_std").backward()
    assert student.grad.isfinite().all() and student.grad.abs().sum() > 0


def test_distillation_weighs_samples_by_their_space(outputs):
    """Of squared errors the weight, of fits its root on both outputs, the slope being as it was."""
    student, target, teacher = outputs
    weight = torch.tensor([0.25, 1.0, 4.0])
    plain = Objective("mse")(student, target, teacher)
    found = Objective("mse")(student, target, teacher, kd_sample_weight=weight)
    by_sample = (student - teacher).square().flatten(1).mean(1).detach()
    same(found["kd"], (weight * by_sample).mean())
    same(found["task"], plain["task"])
    root = weight.sqrt().view(-1, 1, 1, 1)
    lift = Objective("lift", 0.0)(student, target, teacher, kd_sample_weight=weight)
    same(lift["loss"], lift_loss(root * student, root * teacher))


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
