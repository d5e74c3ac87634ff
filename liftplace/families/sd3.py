"""SD3Transformer2DModel: the MMDiT of Stable Diffusion 3 and 3.5."""

import torch

from liftplace.families.transformer import GraphBuilder, Transformer, inner_dim


class SD3(Transformer):
    class_name = "SD3Transformer2DModel"

    def embeddings(self, config):
        return {
            "encoder_hidden_states": (None, config["joint_attention_dim"]),
            "pooled_projections": (config["pooled_projection_dim"],),
        }

    def encode_text(self, pipeline, captions):
        tokens, _, pooled, _ = pipeline.encode_prompt(
            prompt=list(captions), prompt_2=None, prompt_3=None, do_classifier_free_guidance=False
        )
        return {"encoder_hidden_states": tokens, "pooled_projections": pooled}

    def predict(self, model, noisy, timesteps, conditions):
        return model(noisy, timestep=timesteps, return_dict=False, **conditions)[0]

    def block_output(self, output):
        return output[1]  # after the text's

    def keep_layers_config(self, config, kept):
        layers, dual = enumerate(kept["transformer_blocks"]), config["dual_attention_layers"]
        dual = tuple(new for new, old in layers if old in dual)
        return super().keep_layers_config(config, kept) | {"dual_attention_layers": dual}

    def keep_layers_weights(self, weights, config):
        """The last block reads the text and no longer changes it: what did that is dropped."""
        last = f"transformer_blocks.{config['num_layers'] - 1}"
        unread = (f"{last}.ff_context.", f"{last}.attn.to_add_out.")
        weights = {name: w for name, w in weights.items() if not name.startswith(unread)}
        for kind in ("weight", "bias"):
            name = f"{last}.norm1_context.linear.{kind}"
            chunks = weights[name].split(inner_dim(config))
            if len(chunks) > 2:
                shift, scale = chunks[:2]
                weights[name] = torch.cat([scale, shift])  # the order of a last block
        return weights

    def narrow_config(self, config, width, norm_num_groups=None):
        narrow = super().narrow_config(config, width, norm_num_groups)
        return narrow | {"caption_projection_dim": inner_dim(narrow)}

    def channel_graph(self, teacher, student_config):
        builder = GraphBuilder(teacher, student_config)
        stream, text, condition = builder.stream, builder.group("text"), builder.group("condition")
        builder.linear("pos_embed.proj", outputs=(stream,))
        builder.graph.axis("pos_embed.pos_embed", 2, stream)
        builder.embedder("time_text_embed.timestep_embedder", condition)
        builder.embedder("time_text_embed.text_embedder", condition)
        builder.linear("context_embedder", outputs=(text,))
        for name, block in self.blocks(teacher).items():
            builder.modulation(f"{name}.norm1.linear", condition, stream)
            builder.modulation(f"{name}.norm1_context.linear", condition, text)
            builder.attention(f"{name}.attn", (stream,), text=(text,))
            if block.use_dual_attention:
                builder.attention(f"{name}.attn2", (stream,))
            builder.feed_forward(f"{name}.ff", stream)
            if not block.context_pre_only:
                builder.feed_forward(f"{name}.ff_context", text)
        builder.modulation("norm_out.linear", condition, stream)
        builder.linear("proj_out", (stream,))
        return builder.graph


FAMILY = SD3()
