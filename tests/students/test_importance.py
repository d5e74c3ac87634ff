import pytest
import torch
from torch import nn

from liftplace.common.errors import UsageError
from liftplace.students.importance import magnitude, taylor


def test_magnitude_is_the_share_of_the_squares_in_float32():
    layer = nn.Linear(2, 1, dtype=torch.bfloat16)
    layer.weight.data = torch.tensor([[6.0, -2.0]], dtype=torch.bfloat16)
    layer.bias.data.zero_()
    scores = magnitude(layer)
    torch.testing.assert_close(scores["weight"], torch.tensor([[0.9, 0.1]]))
    assert scores["bias"].tolist() == [0.0]


def test_magnitude_does_not_ask_in_which_units_a_layer_computes():
    layer, scaled = nn.Linear(3, 2), nn.Linear(3, 2)
    scaled.weight.data = 1000 * layer.weight.data
    torch.testing.assert_close(magnitude(layer)["weight"], magnitude(scaled)["weight"])


def test_taylor_is_the_squared_change_by_each_weight_summed_over_batches():
    layer = nn.Linear(2, 1, bias=False)
    layer.weight.data = torch.tensor([[3.0, -2.0]])
    inputs = [torch.tensor([[1.0, 0.0]]), torch.tensor([[2.0, 1.0]])]
    # The output is linear in the weights, so w * dL/dw is what the loss loses without w.
    losses = (layer(batch).sum() for batch in inputs)
    assert taylor(layer, losses)["weight"].tolist() == [[3.0**2 + 6.0**2, 0.0 + 2.0**2]]


def test_taylor_sees_what_is_read_and_magnitude_what_is_big():
    model = nn.Sequential(nn.Linear(4, 2), nn.Linear(2, 1))
    model[0].weight.data[0] *= 100
    model[1].weight.data[0, 0] = 0  # nothing reads the big one
    scores = taylor(model, [model(torch.randn(3, 4)).sum()])
    by_magnitude = magnitude(model)["0.weight"].sum(1)
    assert by_magnitude[0] > by_magnitude[1]
    assert scores["0.weight"][0].sum() == 0 < scores["0.weight"][1].sum()


def test_what_no_loss_depends_on_scores_nothing():
    model = nn.ModuleDict({"used": nn.Linear(1, 1), "unused": nn.Linear(1, 1)})
    scores = taylor(model, [model["used"](torch.ones(1)).sum()])
    assert scores["unused.weight"].tolist() == [[0.0]]
    assert scores["used.bias"].item() == pytest.approx(model["used"].bias.item() ** 2)
    assert all(weight.grad is None for weight in model.parameters())


def test_bad_losses_are_refused():
    layer = nn.Linear(1, 1)
    with pytest.raises(UsageError, match="needs at least one batch"):
        taylor(layer, [])
    with pytest.raises(UsageError, match="loss on batch 2 is nan"):
        taylor(layer, [layer(torch.ones(1)).sum(), layer(torch.tensor([torch.nan])).sum()])
