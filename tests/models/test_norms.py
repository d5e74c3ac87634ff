import torch
from torch import nn

from liftplace.models.norms import compare_norms, norm_warning, norms_of
from tests.families.tiny import tiny_model


def test_norms_are_counted():
    model = nn.Sequential(nn.GroupNorm(4, 4), nn.Conv2d(4, 8, 1), nn.GroupNorm(4, 8))
    norms = norms_of(model)
    assert (norms.groups, norms.channels, norms.count) == (4, 1, 2)
    assert (norms.forgetting, norms.last_forgets) == (1, False)
    assert norm_warning(model) is None
    assert norm_warning(model[:1]).startswith("1 of the student's 1 group norms, the last")


def test_a_transformer_has_none():
    model = tiny_model("DiTTransformer2DModel")
    assert norms_of(model) is None and norm_warning(model) is None
    assert compare_norms(model, model) is None


def test_a_norm_that_is_warned_of_takes_the_mean_out_and_one_of_four_channels_does_not():
    images = torch.randn(2, 4, 8, 8)
    brighter = images + torch.tensor([3.0, 0, 0, 0]).view(1, 4, 1, 1)  # in one channel
    for groups, is_lost in ((4, True), (1, False)):
        norm = nn.GroupNorm(groups, 4)
        lost = torch.allclose(norm(images), norm(brighter), atol=1e-4)
        assert lost == is_lost == (norm_warning(norm) is not None)
