"""What a model costs: its parameters, and the work of a forward pass."""

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from liftplace.families import family_of_model

TOKENS = 77  # of text: a CLIP prompt
LATENTS = 128  # height and width where a model has none of its own: 1024 pixels


def count_parameters(model: nn.Module) -> int:
    return sum(weight.numel() for weight in model.parameters())


def count_macs(model: nn.Module) -> int:
    """Multiply-accumulates of one forward pass of one image or latent: convolutions and matrix
    products, attention included. Nothing is computed, and no memory taken.

    The size is the model's own, or 128 x 128 latents where it has none; text has 77 tokens.
    """
    family = family_of_model(model)
    size = family.sample_size(model.config) or LATENTS
    blank = family.skeleton(model.config).eval()
    with torch.device("meta"):
        inputs = family.example(model.config, size=size, tokens=TOKENS)
    # Counted there, because attention is one operation without a formula on a CPU.
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        family.predict(blank, *inputs)
    return counter.get_total_flops() // 2
