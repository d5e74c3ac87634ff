import pytest
import torch
from torch import nn

from liftplace.demo.experiment import TEACHER
from liftplace.demo.methods import MAPPED, METHODS, new_student_trainers
from liftplace.demo.settings import DemoSettings
from liftplace.models.loading import load_model
from liftplace.models.norms import norms_of


@pytest.fixture(scope="module")
def trainers():
    return new_student_trainers(load_model(TEACHER), DemoSettings(group_size=32), "run")


def test_each_has_its_norms_and_its_objective(trainers):
    assert [each.name for each in trainers] == [method.name for method in METHODS]
    for method, trainer in zip(METHODS, trainers, strict=True):
        assert (norms_of(trainer.model).channels == 1) == method.narrow_norms
        assert trainer.objective.loss == method.objective.get("loss", "mse")
        assert (trainer._space_weight is not None) == ("kd_space" in method.objective)
        if trainer.objective.loss == "place":
            assert trainer.objective.group_size == 32
    assert MAPPED in {each.name for each in trainers}


def test_those_of_the_same_norms_start_alike(trainers):
    for narrow in (True, False):
        first, *others = (
            trainer
            for method, trainer in zip(METHODS, trainers, strict=True)
            if method.narrow_norms == narrow
        )
        for other in others:
            assert other.optimizer.defaults == first.optimizer.defaults
            for mine, its in zip(first.parameters, other.parameters, strict=True):
                assert torch.equal(mine, its) and mine is not its


def test_norms_aside_the_students_are_of_one_size(trainers):
    sizes = [sum(weight.numel() for weight in each.model.parameters()) for each in trainers]
    assert max(sizes) < 1.11 * min(sizes)
    assert all(isinstance(each.model, nn.Module) for each in trainers)
