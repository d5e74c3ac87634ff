"""LiftLoss and PlaceLoss are lift_loss and place_loss with their options set once."""

import inspect

import pytest
import torch

from liftplace import LiftLoss, PlaceLoss, lift_loss, place_loss


@pytest.mark.parametrize("module, function", [(LiftLoss, lift_loss), (PlaceLoss, place_loss)])
def test_same_options_and_defaults(module, function):
    of_module = dict(inspect.signature(module.__init__).parameters)
    of_function = dict(inspect.signature(function).parameters)
    del of_module["self"], of_function["student"], of_function["teacher"]
    assert of_module == of_function


def test_same_loss():
    student, teacher = torch.randn(2, 3, 40), torch.randn(2, 3, 40)
    module = PlaceLoss(group_size=8, norm="l2", weight=0.5)
    assert module(student, teacher) == place_loss(
        student, teacher, group_size=8, norm="l2", weight=0.5
    )
    loss, fit = LiftLoss(scope="sample", return_fit=True)(student, teacher)
    assert loss == lift_loss(student, teacher, scope="sample")
    assert fit.slope.shape == (2, 1)


def test_repr_shows_the_options():
    assert repr(PlaceLoss(num_groups=8)) == "PlaceLoss(num_groups=8)"
    assert repr(LiftLoss(norm="l2")) == "LiftLoss(norm='l2')"
    assert repr(LiftLoss()) == "LiftLoss()"


def test_misspelt_option_fails_at_once():
    with pytest.raises(TypeError, match="group"):
        PlaceLoss(group=8)


def test_bad_option_fails_at_once():
    with pytest.raises(ValueError, match="norm='l3'"):
        LiftLoss(norm="l3")
    with pytest.raises(ValueError, match="scope='row'"):
        LiftLoss(scope="row")
    with pytest.raises(ValueError, match="impl='fast' is not known"):
        PlaceLoss(impl="fast")
    with pytest.raises(ValueError, match="group_size=1"):
        PlaceLoss(group_size=1)
