"""UNet2DConditionModel: Stable Diffusion 1.x and 2.x, and SDXL with its added conditions."""

import torch

from liftplace.common.errors import UsageError
from liftplace.families.family import Family
from liftplace.families.unet2d import unet_blocks
from liftplace.families.unet_graph import unet_channel_graph
from liftplace.families.unet_width import attended, narrow_unet

ADDED = ("text_embeds", "time_ids")  # conditions of SDXL besides the tokens

# Whose inputs are other than noise, timestep and text; LCMs are told the guidance by the last.
OTHER_INPUTS = (
    "class_embed_type", "num_class_embeds", "encoder_hid_dim_type", "time_cond_proj_dim"
)  # fmt: skip


class UNet2DCondition(Family):
    class_name = "UNet2DConditionModel"
    component = "unet"
    takes_any_size = True

    def unsupported_reason(self, config):
        if config["addition_embed_type"] not in (None, "text_time"):
            return (
                f"has addition_embed_type {config['addition_embed_type']}: need none (Stable "
                "Diffusion 1.x, 2.x) or text_time (SDXL)"
            )
        for name in OTHER_INPUTS:
            if config[name] is not None:
                return f"has {name} {config[name]}, an input that is not supported"
        return super().unsupported_reason(config)

    def embeddings(self, config):
        width = config["cross_attention_dim"]
        shapes = {"encoder_hidden_states": (None, width if isinstance(width, int) else width[0])}
        if config["addition_embed_type"] == "text_time":
            times = 6 * config["addition_time_embed_dim"]
            shapes["text_embeds"] = (config["projection_class_embeddings_input_dim"] - times,)
        return shapes

    def encode_text(self, pipeline, captions):
        if "SDXL" in type(pipeline).__name__ or "XL" in type(pipeline).__name__:
            tokens, _, pooled, _ = pipeline.encode_prompt(
                list(captions), do_classifier_free_guidance=False
            )
            return {"encoder_hidden_states": tokens, "text_embeds": pooled}
        tokens, _ = pipeline.encode_prompt(
            list(captions),
            pipeline.device,
            num_images_per_prompt=1,
            do_classifier_free_guidance=False,
        )
        return {"encoder_hidden_states": tokens}

    def size_conditions(self, config, batch, height, width):
        if config["addition_embed_type"] is None:
            return {}
        # original size, corner of the crop, target size
        sizes = [height, width, 0, 0, height, width]
        return {"time_ids": torch.tensor([sizes] * batch, dtype=torch.float32)}

    def predict(self, model, noisy, timesteps, conditions):
        plain = {name: value for name, value in conditions.items() if name not in ADDED}
        added = {name: value for name, value in conditions.items() if name in ADDED}
        plain["added_cond_kwargs"] = added or None
        return model(noisy, timesteps, return_dict=False, **plain)[0]

    def blocks(self, model):
        return unet_blocks(model)

    def narrow_config(self, config, width, norm_num_groups=None):
        for name, plain in (("dual_cross_attention", False), ("attention_type", "default")):
            if config[name] != plain:
                raise UsageError(f"width: cannot narrow a model with {name} {config[name]}")
        old, stages = config["block_out_channels"], attended(config)
        # diffusers' attention_head_dim is the number of heads here, one or one for each stage.
        heads = config["attention_head_dim"]
        heads = [heads] * len(old) if isinstance(heads, int) else list(heads)

        def keeps_heads(stage, new):
            return stage not in stages or _narrow_heads(old[stage], heads[stage], new) is not None

        ways = [(keeps_heads, None)]
        student, _ = narrow_unet(config, width, lambda share: ways, norm_num_groups)
        for stage in stages:
            new = student["block_out_channels"][stage]
            heads[stage] = _narrow_heads(old[stage], heads[stage], new)
        return student | {"attention_head_dim": heads[0] if len(set(heads)) == 1 else tuple(heads)}

    def channel_graph(self, teacher, student_config):
        return unet_channel_graph(teacher, self.skeleton(student_config))


def _narrow_heads(old: int, heads: int, new: int) -> int | None:
    """How many heads stay: whole ones, else all of them with less width; None where neither."""
    if new % (old // heads) == 0:
        return new // (old // heads)
    return heads if new % heads == 0 else None


FAMILY = UNet2DCondition()
