from dataclasses import replace

import pytest
import torch

from liftplace.analyze.advice import LARGE_COARSE, advise
from liftplace.analyze.model_errors import measure_errors, spread_timesteps
from liftplace.analyze.propagation import coarse_share, in_half, propagate, propagation_factors
from liftplace.demo.experiment import TEACHER
from liftplace.models.loading import load_model
from liftplace.models.shrink import shrink
from tests.analyze.analyses import carried_of, errors_of
from tests.families.tiny import tiny_model
from tests.train.tiny import tiny_unet

NARROW = {"norm_num_groups": 8}  # of (8, 8) channels


def with_share(share):
    """Errors of which this share is coarse at every timestep."""
    errors = errors_of(0.1)
    return replace(errors, coarse=share * errors.total, fine=(1 - share) * errors.total)


def advised(student, prediction_type, share):
    errors = with_share(share)
    return advise(student, prediction_type, errors, carried_of(errors), 500)


@pytest.mark.parametrize(
    "prediction_type, changes, share, rule",
    [
        ("epsilon", NARROW, 0.1, "norms"),
        ("epsilon", NARROW, 0.9, "norms"),
        ("v_prediction", NARROW, 0.1, "fine"),  # what its errors do is not multiplied
        ("flow", NARROW, 0.9, "coarse"),
        ("epsilon", {}, LARGE_COARSE + 0.01, "coarse"),
        ("epsilon", {}, LARGE_COARSE - 0.01, "fine"),
    ],
    ids=str,
)
def test_the_first_rule_that_holds_gives_the_advice(prediction_type, changes, share, rule):
    found = advised(tiny_unet(**changes), prediction_type, share)
    assert found.rule == rule and found.share == pytest.approx(share)
    assert f"{share:.0%}" in found.text and "\n" not in found.text


def test_a_model_without_group_norms_gets_no_advice_on_them():
    assert advised(tiny_model("DiTTransformer2DModel"), "epsilon", 0.1).rule == "fine"


@pytest.mark.parametrize(
    "channels, groups, advice", [((8, 8), 8, 2), ((12, 12), 12, 3), ((6, 12), 6, 1)]
)
def test_groups_that_are_advised_leave_four_channels(channels, groups, advice):
    student = tiny_unet(block_out_channels=channels, norm_num_groups=groups)
    assert f"--student_norm_num_groups {advice}," in advised(student, "epsilon", 0.5).text


def test_an_error_at_the_timesteps_that_are_multiplied_most_counts_most():
    errors = with_share(0.1)
    coarse = errors.coarse.clone()
    coarse[-1] = 0.9 * errors.total[-1]
    errors = replace(errors, coarse=coarse, fine=errors.total - coarse)
    assert coarse_share(errors, in_half(errors, 500, True)) < LARGE_COARSE
    timesteps = carried_of(errors).timesteps
    reaches = propagate(errors, timesteps, torch.exp(timesteps / 50))
    assert advise(tiny_unet(), "epsilon", errors, reaches, 500).rule == "coarse"


def test_a_student_without_error_is_told_so():
    errors = errors_of(0.1)
    nothing = torch.zeros_like(errors.total)
    errors = replace(errors, total=nothing, coarse=nothing, fine=nothing)
    found = advise(tiny_unet(**NARROW), "epsilon", errors, carried_of(errors), 500)
    assert found.rule == "agrees" and "agrees with its teacher at t > 500" in found.text


def test_untrained_students_of_the_teacher_of_noise_are_told_apart():
    loaded = load_model(TEACHER)
    teacher, process = loaded.model.eval(), loaded.process()
    students = {
        groups: shrink(teacher.config, (8, 8, 8), norm_num_groups=groups).eval()
        for groups in (8, 2)
    }
    images = torch.rand(4, 1, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    found = measure_errors(
        students, teacher, process, images, numbers=spread_timesteps(process, 6), description=None
    )
    advice = {}
    for groups, student in students.items():
        reaches = propagate(found[groups], *propagation_factors(process, 10))
        advice[groups] = advise(student, process.prediction_type, found[groups], reaches, 500)
    assert advice[8].rule == "norms" and "17 of 23 norms, the one before" in advice[8].text
    assert "--student_norm_num_groups 2," in advice[8].text
    assert advice[2].rule != "norms" and "norm" not in advice[2].text
