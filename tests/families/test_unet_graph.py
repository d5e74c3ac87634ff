import math

import pytest
import torch
from diffusers.models.embeddings import get_timestep_embedding

from liftplace.families.unet_graph import nearest_frequencies


@pytest.mark.parametrize("flip", [False, True])
def test_every_second_frequency_is_the_code_of_half_the_width(flip):
    timesteps = torch.tensor([1.0, 250.0, 999.0])
    wide = get_timestep_embedding(timesteps, 32, flip, downscale_freq_shift=0)
    narrow = get_timestep_embedding(timesteps, 16, flip, downscale_freq_shift=0)
    kept = nearest_frequencies(16, 8, 0)
    assert kept == list(range(0, 16, 2))
    torch.testing.assert_close(wide.reshape(3, 2, 16)[:, :, kept].flatten(1), narrow)


@pytest.mark.parametrize("size, kept, shift", [(64, 48, 0), (64, 48, 1), (64, 3, 1), (5, 4, 0)])
def test_each_frequency_is_the_nearest(size, kept, shift):
    theirs = [-math.log(1e4) * i / (size - shift) for i in range(size)]
    ours = [-math.log(1e4) * i / (kept - shift) for i in range(kept)]
    chosen = nearest_frequencies(size, kept, shift)
    assert len(set(chosen)) == kept
    for i, wanted in zip(chosen, ours, strict=True):
        assert abs(theirs[i] - wanted) == pytest.approx(min(abs(t - wanted) for t in theirs))
