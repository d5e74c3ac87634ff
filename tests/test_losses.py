"""LiftLoss and PlaceLoss are lift_loss and place_loss with their options set once."""

import inspect
import typing

import pytest
import torch

from liftplace import LiftLoss, PlaceLoss, lift_loss, linear_fit, place_loss
from liftplace.functional import LiftOptions, PlaceOptions


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


def test_torch_load_makes_them_again(tmp_path):
    """Under its defaults, which make no object that they do not know."""
    student, teacher = torch.randn(2, 3, 40), torch.randn(2, 3, 40)
    module = PlaceLoss(group_size=8, weight=torch.tensor(0.5))
    _, fit = place_loss(student, teacher, return_fit=True)
    found = linear_fit(student, teacher, group_size=8)
    torch.save({"module": module, "fit": fit, "found": found}, tmp_path / "all.pt")
    again = torch.load(tmp_path / "all.pt")
    assert again["module"](student, teacher) == module(student, teacher)
    for old, new in ((fit, again["fit"]), (found, again["found"])):
        assert type(new) is type(old) and all(map(torch.equal, new, old))


@pytest.mark.parametrize("loss_fn, options", [(lift_loss, LiftOptions), (place_loss, PlaceOptions)])
def test_types_name_every_option(loss_fn, options):
    """What a type checker knows of the result by `return_fit`: see PEP 692."""
    parameters = set(inspect.signature(loss_fn).parameters)
    assert parameters - {"student", "teacher", "return_fit"} == set(options.__annotations__) | set(
        LiftOptions.__annotations__
    )
    results = [typing.get_type_hints(each)["return"] for each in typing.get_overloads(loss_fn)]
    assert results[0] is torch.Tensor and typing.get_args(results[1])[0] is torch.Tensor
