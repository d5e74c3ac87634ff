"""A tiny model of each family."""

import torch

from liftplace.families import families

LATENT = {"sample_size": 8, "in_channels": 4}
TINY = {
    "UNet2DModel": {
        "sample_size": 8, "in_channels": 3, "out_channels": 3, "block_out_channels": (16, 32),
        "layers_per_block": 1, "norm_num_groups": 8, "attention_head_dim": 8,
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
        "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    },
    "UNet2DConditionModel": LATENT | {
        "out_channels": 4, "block_out_channels": (16, 32), "layers_per_block": 2,
        "norm_num_groups": 8, "cross_attention_dim": 24, "attention_head_dim": 2,
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    },
    "DiTTransformer2DModel": LATENT | {
        "out_channels": 8, "num_layers": 4, "num_attention_heads": 2, "attention_head_dim": 8,
        "num_embeds_ada_norm": 10,
    },
    "PixArtTransformer2DModel": LATENT | {
        "out_channels": 8, "num_layers": 4, "num_attention_heads": 2, "attention_head_dim": 8,
        "cross_attention_dim": 16, "caption_channels": 24,
    },
    "SD3Transformer2DModel": LATENT | {
        "out_channels": 4, "num_layers": 4, "num_attention_heads": 2, "attention_head_dim": 8,
        "joint_attention_dim": 24, "caption_projection_dim": 16, "pooled_projection_dim": 20,
        "pos_embed_max_size": 8,
    },
    "FluxTransformer2DModel": {
        "in_channels": 16, "num_layers": 2, "num_single_layers": 4, "attention_head_dim": 16,
        "num_attention_heads": 2, "joint_attention_dim": 24, "pooled_projection_dim": 20,
        "axes_dims_rope": (4, 6, 6),
    },
}  # fmt: skip


def tiny_model(class_name: str, seed: int = 0, **changes):
    """A randomly initialised model; the same seed gives the same weights."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return families()[class_name].model_class(**TINY[class_name] | changes)
