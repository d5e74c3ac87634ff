"""PixArtTransformer2DModel: PixArt-alpha and PixArt-Sigma."""

import torch

from liftplace.families.transformer import (
    GraphBuilder,
    Transformer,
    inner_dim,
    position_code_channels,
)

SIZES = ("resolution", "aspect_ratio")


class PixArt(Transformer):
    class_name = "PixArtTransformer2DModel"

    def embeddings(self, config):
        width = config["caption_channels"] or config["cross_attention_dim"]
        return {"encoder_hidden_states": (None, width), "encoder_attention_mask": (None,)}

    def encode_text(self, pipeline, captions):
        tokens, mask, _, _ = pipeline.encode_prompt(
            list(captions), do_classifier_free_guidance=False, num_images_per_prompt=1
        )
        return {"encoder_hidden_states": tokens, "encoder_attention_mask": mask}

    def size_conditions(self, config, batch, height, width):
        if not _by_size(config):
            return {}
        size = torch.tensor([[height, width]] * batch, dtype=torch.float32)
        return {"resolution": size, "aspect_ratio": torch.full((batch, 1), height / width)}

    def predict(self, model, noisy, timesteps, conditions):
        plain = {name: value for name, value in conditions.items() if name not in SIZES}
        sizes = {name: conditions.get(name) for name in SIZES}
        return model(
            noisy, timestep=timesteps, added_cond_kwargs=sizes, return_dict=False, **plain
        )[0]

    def width_multiple(self, config):
        # The embeddings of height, width and aspect ratio are a third each.
        return 12 if _by_size(config) else 4

    def narrow_config(self, config, width, norm_num_groups=None):
        narrow = super().narrow_config(config, width, norm_num_groups)
        if config["caption_channels"] is not None:  # then captions are projected to this width
            narrow["cross_attention_dim"] = inner_dim(narrow)
        return narrow

    def channel_graph(self, teacher, student_config):
        # The position code is computed from the width and not saved: it decides what stays.
        code = position_code_channels(inner_dim(teacher.config), inner_dim(student_config))
        builder = GraphBuilder(teacher, student_config, stream=code)
        stream, captions = builder.stream, ()
        builder.linear("pos_embed.proj", outputs=(stream,))
        # The embedded time is added to tables over the stream, so it is the stream's.
        builder.embedder("adaln_single.emb.timestep_embedder", stream)
        builder.modulation("adaln_single.linear", stream, stream)
        if teacher.use_additional_conditions:
            third = builder.part("size", 3)
            builder.embedder("adaln_single.emb.resolution_embedder", third)
            builder.embedder("adaln_single.emb.aspect_ratio_embedder", third)
        if teacher.caption_projection is not None:
            captions = (builder.group("captions"),)
            builder.embedder("caption_projection", *captions)
        for block in self.blocks(teacher):
            builder.graph.axis(f"{block}.scale_shift_table", 1, stream)
            builder.attention(f"{block}.attn1", (stream,))
            builder.attention(f"{block}.attn2", (stream,), captions)
            for norm in ("norm1", "norm2", "norm3"):
                builder.norm(f"{block}.{norm}", stream)
            builder.feed_forward(f"{block}.ff", stream)
        builder.graph.axis("scale_shift_table", 1, stream)
        builder.linear("proj_out", (stream,))
        return builder.graph

    def example(self, config, *, batch=1, size=None, tokens=8):
        noisy, timesteps, conditions = super().example(
            config, batch=batch, size=size, tokens=tokens
        )
        conditions["encoder_attention_mask"] = torch.ones(batch, tokens)
        return noisy, timesteps, conditions


def _by_size(config) -> bool:
    """Whether the size of the image is a condition."""
    if config["use_additional_conditions"] is not None:
        return config["use_additional_conditions"]
    return config["sample_size"] == 128  # diffusers' own default


FAMILY = PixArt()
