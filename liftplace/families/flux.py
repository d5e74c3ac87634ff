"""FluxTransformer2DModel: latents in patches of 2 x 2, packed into tokens."""

import torch
import torch.nn.functional as F
from torch import Tensor

from liftplace.families.transformer import GraphBuilder, Transformer

PATCH = 2
GUIDANCE_SCALE = 3.5  # of guidance-distilled models, as in the diffusers scripts


class Flux(Transformer):
    class_name = "FluxTransformer2DModel"

    def in_channels(self, config):
        return config["in_channels"] // PATCH**2

    def out_channels(self, config):
        return (config["out_channels"] or config["in_channels"]) // PATCH**2

    def sample_size(self, config):
        return None

    def embeddings(self, config):
        return {
            "encoder_hidden_states": (None, config["joint_attention_dim"]),
            "pooled_projections": (config["pooled_projection_dim"],),
        }

    def encode_text(self, pipeline, captions):
        tokens, pooled, _ = pipeline.encode_prompt(prompt=list(captions), prompt_2=None)
        return {"encoder_hidden_states": tokens, "pooled_projections": pooled}

    def size_conditions(self, config, batch, height, width):
        if not config["guidance_embeds"]:
            return {}
        return {"guidance": torch.full((batch,), GUIDANCE_SCALE)}

    def predict(self, model, noisy, timesteps, conditions):
        height, width = noisy.shape[2] // PATCH, noisy.shape[3] // PATCH
        text = conditions["encoder_hidden_states"]
        output = model(
            F.pixel_unshuffle(noisy, PATCH).flatten(2).transpose(1, 2),
            timestep=timesteps / 1000,
            img_ids=_places(height, width).to(noisy),
            txt_ids=noisy.new_zeros(text.shape[1], 3),
            return_dict=False,
            **conditions,
        )[0]
        return F.pixel_shuffle(output.transpose(1, 2).unflatten(2, (height, width)), PATCH)

    def block_output(self, output):
        return output[1]  # after the text's

    def layers(self, config):
        singles = config["num_single_layers"]
        return {"transformer_blocks": config["num_layers"], "single_transformer_blocks": singles}

    def keep_layers_config(self, config, kept):
        singles = len(kept["single_transformer_blocks"])
        return super().keep_layers_config(config, kept) | {"num_single_layers": singles}

    def width_multiple(self, config):
        return 1  # a rotary position code inside the heads, which stay as they are

    def channel_graph(self, teacher, student_config):
        # The single blocks read text and image as one sequence: one group.
        builder = GraphBuilder(teacher, student_config)
        stream, condition = builder.stream, builder.group("condition")
        builder.linear("x_embedder", outputs=(stream,))
        builder.linear("context_embedder", outputs=(stream,))
        builder.embedder("time_text_embed.timestep_embedder", condition)
        builder.embedder("time_text_embed.text_embedder", condition)
        if teacher.config["guidance_embeds"]:
            builder.embedder("time_text_embed.guidance_embedder", condition)
        for i in range(len(teacher.transformer_blocks)):
            block = f"transformer_blocks.{i}"
            builder.modulation(f"{block}.norm1.linear", condition, stream)
            builder.modulation(f"{block}.norm1_context.linear", condition, stream)
            builder.attention(f"{block}.attn", (stream,), text=(stream,))
            builder.feed_forward(f"{block}.ff", stream)
            builder.feed_forward(f"{block}.ff_context", stream)
        for i in range(len(teacher.single_transformer_blocks)):
            block = f"single_transformer_blocks.{i}"
            builder.modulation(f"{block}.norm.linear", condition, stream)
            heads = builder.attention(f"{block}.attn", (stream,))
            hidden = builder.group(f"{block}.hidden", times=4)
            builder.linear(f"{block}.proj_mlp", (stream,), (hidden,))
            builder.linear(f"{block}.proj_out", (heads, hidden), (stream,))
        builder.modulation("norm_out.linear", condition, stream)
        builder.linear("proj_out", (stream,))
        return builder.graph


def _places(height: int, width: int) -> Tensor:
    """(height * width, 3): 0, row and column of each token, for the rotary embedding."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([torch.zeros_like(rows), rows, columns], dim=-1).flatten(0, 1)


FAMILY = Flux()
