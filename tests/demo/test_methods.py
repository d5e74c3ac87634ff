import pytest
import torch
from torch import nn

from liftplace.demo.experiment import TEACHER
from liftplace.demo.methods import MAPPED, METHODS, new_learners
from liftplace.demo.settings import DemoSettings
from liftplace.models.loading import load_model
from liftplace.models.norms import norms_of


@pytest.fixture(scope="module")
def learners():
    return new_learners(load_model(TEACHER), DemoSettings(group_size=32), "run")


def test_each_has_its_norms_and_its_objective(learners):
    assert [each.name for each in learners] == [method.name for method in METHODS]
    for method, learner in zip(METHODS, learners, strict=True):
        assert (norms_of(learner.model).channels == 1) == method.narrow_norms
        assert learner.objective.loss == method.objective.get("loss", "mse")
        assert (learner.space_weight is not None) == ("kd_space" in method.objective)
        if learner.objective.loss == "place":
            assert learner.objective.group_size == 32
    assert MAPPED in {each.name for each in learners}


def test_those_of_the_same_norms_start_alike(learners):
    for narrow in (True, False):
        first, *others = (
            learner
            for method, learner in zip(METHODS, learners, strict=True)
            if method.narrow_norms == narrow
        )
        for other in others:
            assert other.optimizer.defaults == first.optimizer.defaults
            for mine, its in zip(first.parameters, other.parameters, strict=True):
                assert torch.equal(mine, its) and mine is not its


def test_norms_aside_the_students_are_of_one_size(learners):
    sizes = [sum(weight.numel() for weight in each.model.parameters()) for each in learners]
    assert max(sizes) < 1.11 * min(sizes)
    assert all(isinstance(each.model, nn.Module) for each in learners)
