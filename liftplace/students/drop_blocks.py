"""The students of BK-SDM: a Stable Diffusion U-Net without some of its blocks.

Kim et al., arXiv 2305.15798, section 3.1. Of each down stage the first pair of residual and
attention block stays, of each up stage the first and the third ("bk-base"); "bk-small" also loses
the mid block, and "bk-tiny" also the innermost down and up stage. What stays fits together without
a new weight, as the pairs that stay read the same number of channels as before.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from liftplace.common.errors import UsageError
from liftplace.families import Family

KINDS = ("bk-base", "bk-small", "bk-tiny")
LAYERS = 2  # in a down stage; an up stage has one more
BY_STAGE = (
    *("block_out_channels", "down_block_types", "layers_per_block", "cross_attention_dim"),
    *("transformer_layers_per_block", "attention_head_dim", "only_cross_attention"),
)
BY_UP_STAGE = ("up_block_types", "reverse_transformer_layers_per_block")


def drop_blocks(teacher: nn.Module, family: Family, kind: str) -> tuple[nn.Module, dict[str, str]]:
    """A student without these blocks; the others have the teacher's weights.

    Args:
        teacher: a UNet2DConditionModel with two layers in each block.
        kind: "bk-base", "bk-small" or "bk-tiny".

    Returns:
        The student in the teacher's dtype on its device, and the teacher's block for each block of
        the student whose output is the same hidden state.

    Raises:
        UsageError: another family, or a model that has not the blocks.
    """
    config = dropped_config(teacher.config, family, kind)
    with torch.random.fork_rng(devices=[]):  # its first weights are thrown away
        student = family.new(config)
    lost = len(teacher.down_blocks) - len(student.down_blocks)
    weights = teacher.state_dict()
    student.load_state_dict(
        {name: weights[_teacher_name(name, lost)].clone() for name in student.state_dict()},
        assign=True,
    )
    names = {name: _teacher_name(name, lost) for name in family.blocks(student)}
    if lost:  # the innermost stage no longer halves its height and width at its end
        del names[f"down_blocks.{len(student.down_blocks) - 1}"]
    return student.to(teacher.device), names


def dropped_config(config: Mapping[str, Any], family: Family, kind: str) -> dict[str, Any]:
    """The constructor arguments of the student; see `drop_blocks`."""
    if kind not in KINDS:
        raise UsageError(f"drop_blocks must be one of {', '.join(KINDS)}, got {kind}")
    if family.class_name != "UNet2DConditionModel":
        raise UsageError(
            f"drop_blocks {kind} is for UNet2DConditionModel, got {family.class_name}: use width, "
            "or for a transformer keep_layers or depth"
        )
    student = {name: value for name, value in config.items() if not name.startswith("_")}
    layers = student["layers_per_block"]
    if set(_each(layers)) != {LAYERS}:
        raise UsageError(
            f"drop_blocks {kind} needs a teacher with layers_per_block {LAYERS}, got {layers}"
        )
    student["layers_per_block"] = 1
    for name, kept in (
        ("transformer_layers_per_block", (0,)),
        ("reverse_transformer_layers_per_block", (0, LAYERS)),
    ):
        student[name] = _keep_layers(student[name], kept)
    if kind != "bk-base":
        student["mid_block_type"] = None
    return _without_innermost(student, kind) if kind == "bk-tiny" else student


def _without_innermost(student: dict[str, Any], kind: str) -> dict[str, Any]:
    channels = student["block_out_channels"]
    if len(channels) < 2 or channels[-1] != channels[-2]:
        raise UsageError(
            f"drop_blocks {kind} needs two innermost stages of the same width, got "
            f"block_out_channels {list(channels)}: use bk-small"
        )
    for name in (*BY_STAGE, *BY_UP_STAGE):
        if isinstance(student[name], tuple | list):
            stages = list(student[name])
            student[name] = stages[:-1] if name in BY_STAGE else stages[1:]
    return student


def _keep_layers(stages: Any, kept: tuple[int, ...]) -> Any:
    """Of the numbers of transformer blocks those of the layers that stay, where a stage has one
    for each layer."""
    if not isinstance(stages, tuple | list):
        return stages
    return [
        [layers[i] for i in kept] if isinstance(layers, tuple | list) else layers
        for layers in stages
    ]


def _each(value: Any) -> list:
    return list(value) if isinstance(value, tuple | list) else [value]


def _teacher_name(name: str, lost: int) -> str:
    """The name in the teacher of a weight or module of the student.

    Args:
        lost: how many of the innermost stages the student has lost.
    """
    parts = name.split(".")
    if parts[0] == "up_blocks":
        parts[1] = str(int(parts[1]) + lost)
        if parts[2:] and parts[2] in ("resnets", "attentions") and parts[3] == "1":
            parts[3] = str(LAYERS)  # of three the first and the last
    return ".".join(parts)
