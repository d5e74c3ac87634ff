"""UNet2DModel: images in pixel or latent space, with and without class labels."""

from liftplace.families.family import Family
from liftplace.families.norm_groups import student_groups
from liftplace.families.unet_graph import unet_channel_graph
from liftplace.families.unet_width import attended, narrow_unet


class UNet2D(Family):
    class_name = "UNet2DModel"
    component = "unet"

    def unsupported_reason(self, config):
        if config["class_embed_type"] is not None:
            return (
                f"has class_embed_type {config['class_embed_type']}: only a table of classes "
                "(num_class_embeds) is supported"
            )
        return super().unsupported_reason(config)

    def num_classes(self, config):
        return config["num_class_embeds"]

    def predict(self, model, noisy, timesteps, conditions):
        return model(noisy, timesteps, return_dict=False, **conditions)[0]

    def blocks(self, model):
        return unet_blocks(model)

    def narrow_config(self, config, width, norm_num_groups=None):
        student, head = narrow_unet(
            config, width, lambda share: _ways(config, share), norm_num_groups
        )
        groups = config["attn_norm_num_groups"]  # of the mid block's attention
        if groups and width < 1:
            new, old = (each["block_out_channels"][-1:] for each in (student, config))
            groups = student_groups(new, old, groups)
        return student | {"attention_head_dim": head, "attn_norm_num_groups": groups}

    def channel_graph(self, teacher, student_config):
        return unet_channel_graph(teacher, self.skeleton(student_config))


def _ways(config, width):
    """Whole heads, or as many heads of less width: a head's width is one for the whole model."""
    head, channels = config["attention_head_dim"], config["block_out_channels"]
    if head is None:  # one head for each attention
        return [(lambda stage, new: True, None)]
    stages, less = attended(config), max(1, round(head * width))

    def whole_heads(stage, new):
        return stage not in stages or new % head == 0

    def as_many_heads(stage, new):
        return stage not in stages or new * head == channels[stage] * less

    return [(whole_heads, head), (as_many_heads, less)]


def unet_blocks(model) -> dict:
    """Down blocks, mid block, up blocks."""
    blocks = {f"down_blocks.{i}": block for i, block in enumerate(model.down_blocks)}
    if model.mid_block is not None:
        blocks["mid_block"] = model.mid_block
    return blocks | {f"up_blocks.{i}": block for i, block in enumerate(model.up_blocks)}


FAMILY = UNet2D()
