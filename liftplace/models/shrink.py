"""A student of the teacher's architecture with fewer channels and layers, newly initialised."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from diffusers import UNet2DModel

from liftplace.common.errors import UsageError
from liftplace.families import families
from liftplace.families.norm_groups import student_groups


def shrink(
    teacher_config: Mapping[str, Any],
    block_out_channels: Sequence[int],
    layers_per_block: int | None = None,
    norm_num_groups: int | None = None,
    *,
    seed: int = 0,
) -> UNet2DModel:
    """A new UNet2DModel like the teacher but for its width and depth.

    Group norms have as many groups, the teacher's or fewer, as leave every one its channels: see
    `families.norm_groups`.

    Args:
        teacher_config: of the teacher, as in its config.json.
        block_out_channels: channels of each level, as many levels as the teacher has.
        layers_per_block: layers of each level; the teacher's if not given.
        norm_num_groups: groups of the group norms outside attention, if not those.
        seed: of the initial weights; the global generator is left alone.

    Raises:
        UsageError: another number of levels, or numbers that UNet2DModel does not take.
    """
    levels = len(teacher_config["block_out_channels"])
    if len(block_out_channels) != levels:
        raise UsageError(
            f"student_block_out_channels must be {levels} numbers, one for each level of the "
            f"teacher {list(teacher_config['block_out_channels'])}, got {list(block_out_channels)}"
        )
    config = {name: value for name, value in teacher_config.items() if not name.startswith("_")}
    config["block_out_channels"] = tuple(block_out_channels)
    config["layers_per_block"] = layers_per_block or teacher_config["layers_per_block"]
    old_channels = teacher_config["block_out_channels"]
    config["norm_num_groups"] = norm_num_groups or student_groups(
        block_out_channels, old_channels, config["norm_num_groups"]
    )
    if config.get("attn_norm_num_groups"):  # of the mid block's attention
        config["attn_norm_num_groups"] = student_groups(
            block_out_channels[-1:], old_channels[-1:], config["attn_norm_num_groups"]
        )
    if any(channels % config["norm_num_groups"] for channels in block_out_channels):
        raise UsageError(
            f"student_norm_num_groups must divide the channels {list(block_out_channels)}, got "
            f"{norm_num_groups}"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            return families()["UNet2DModel"].new(config)
        except ValueError as error:
            raise UsageError(
                f"no student with channels {list(block_out_channels)}: {error}"
            ) from error
