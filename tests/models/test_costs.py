import pytest
import torch
from torch import nn

from liftplace.families import families, family_of_model
from liftplace.models.costs import count_macs, count_parameters
from tests.families.tiny import TINY, tiny_model


def macs_of_layers(model) -> int:
    """Of convolutions and linear layers alone, by hand, from the shapes of what they return."""
    counts = []

    def count(layer, inputs, output):
        shape = output.shape
        positions = shape[2:] if isinstance(layer, nn.Conv2d) else shape[:-1]
        counts.append(positions.numel() * layer.weight.numel())

    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.register_forward_hook(count)
    family = family_of_model(model)
    with torch.no_grad():
        family.predict(model.eval(), *family.example(model.config, tokens=77))
    return sum(counts)


def test_macs_without_attention_are_those_of_the_layers():
    plain = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2}
    model = tiny_model("UNet2DModel", add_attention=False, **plain)
    assert count_macs(model) == macs_of_layers(model) > 0


@pytest.mark.parametrize(
    ("name", "tokens", "blocks"),
    [("DiTTransformer2DModel", 16, 4), ("SD3Transformer2DModel", 16 + 77, 4)],
)
def test_macs_of_attention(name, tokens, blocks):
    model = tiny_model(name)
    attention = blocks * 2 * tokens**2 * 16  # queries by keys, and by values; 16 channels
    assert count_macs(model) == macs_of_layers(model) + attention


@pytest.mark.parametrize("name", sorted(TINY))
def test_counting_takes_nothing_but_the_config(name):
    model = tiny_model(name)
    before = torch.get_rng_state()
    with torch.device("meta"):
        blank = families()[name].model_class(**TINY[name])
    assert count_macs(blank) == count_macs(model) > 0
    assert count_parameters(blank) == count_parameters(model)
    assert torch.equal(torch.get_rng_state(), before)
