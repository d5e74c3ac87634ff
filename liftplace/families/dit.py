"""DiTTransformer2DModel: class-conditional, with a learned variance."""

from liftplace.families.transformer import (
    GraphBuilder,
    Transformer,
    inner_dim,
    position_code_channels,
)


class DiT(Transformer):
    class_name = "DiTTransformer2DModel"
    trains_variance = True

    def num_classes(self, config):
        return config["num_embeds_ada_norm"]

    def null_class(self, config):
        return config["num_embeds_ada_norm"]

    def predict(self, model, noisy, timesteps, conditions):
        return model(noisy, timestep=timesteps, return_dict=False, **conditions)[0]

    def channel_graph(self, teacher, student_config):
        # The position code is computed from the width and not saved: it decides what stays.
        code = position_code_channels(inner_dim(teacher.config), inner_dim(student_config))
        builder = GraphBuilder(teacher, student_config, stream=code)
        stream = builder.stream
        builder.linear("pos_embed.proj", outputs=(stream,))
        for block in self.blocks(teacher):
            condition = builder.group(f"{block}.condition")  # each embeds time and class
            builder.embedder(f"{block}.norm1.emb.timestep_embedder", condition)
            builder.graph.axis(
                f"{block}.norm1.emb.class_embedder.embedding_table.weight", 1, condition
            )
            builder.modulation(f"{block}.norm1.linear", condition, stream)
            builder.attention(f"{block}.attn1", (stream,))
            builder.norm(f"{block}.norm3", stream)
            builder.feed_forward(f"{block}.ff", stream)
        builder.modulation("proj_out_1", "transformer_blocks.0.condition", stream)
        builder.linear("proj_out_2", (stream,))
        return builder.graph


FAMILY = DiT()
