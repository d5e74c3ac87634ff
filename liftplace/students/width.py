"""Narrow students: every stage with a fraction of the teacher's channels or heads."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from liftplace.common.errors import UsageError
from liftplace.families import Family
from liftplace.families.channel_graph import ChannelGraph


def narrow(
    teacher: nn.Module, family: Family, width: float, *, scores: Mapping[str, Tensor]
) -> tuple[nn.Module, dict[str, Tensor]]:
    """`inherit` with a share of the channels or heads, in (0, 1].

    Raises:
        UsageError: a width that the model's norm groups and heads do not allow.
    """
    check_width(width)
    return inherit(teacher, family, family.narrow_config(teacher.config, width), scores=scores)


def inherit(
    teacher: nn.Module, family: Family, config: Mapping[str, Any], *, scores: Mapping[str, Tensor]
) -> tuple[nn.Module, dict[str, Tensor]]:
    """A student that keeps the teacher's most important channels and their weights.

    Args:
        teacher: a diffusers model of the family.
        config: constructor arguments of the student, which has the teacher's blocks.
        scores: importance of each weight by its parameter's name; see `students.importance`.

    Returns:
        The student, a diffusers model in the teacher's dtype on its device, and the indices that
        it keeps of each channel group.

    Raises:
        ValueError: a student with weights that are no part of the teacher's, or without a layer of
            the teacher's other than the convolution past a block that is as wide on both sides.
    """
    with torch.random.fork_rng(devices=[]):  # its first weights are thrown away
        student = family.new(config)
    names = student.state_dict().keys()
    for name in teacher.state_dict():
        if name not in names and ".conv_shortcut." not in name:
            raise ValueError(f"{name}: only the teacher has it")
    graph = family.channel_graph(teacher, config)
    indices = graph.indices(scores)
    student.load_state_dict(sliced(teacher, student, graph, indices), assign=True)
    return student.to(teacher.device), indices


def check_width(width: float) -> None:
    """Raises UsageError for a share that is none."""
    if not 0 < width <= 1:
        raise UsageError(f"width must be more than 0 and at most 1, got {width}")


def sliced(
    teacher: nn.Module, student: nn.Module, graph: ChannelGraph, indices: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """The teacher's weights cut to the student's shapes, without those that it has no use for.

    Raises:
        ValueError: a weight that the graph does not cut to the student's shape.
    """
    weights = graph.slice(teacher.state_dict(), indices)
    for name, expected in student.state_dict().items():
        if name not in weights or weights[name].shape != expected.shape:
            got = list(weights[name].shape) if name in weights else "nothing"
            raise ValueError(f"{name}: sliced to {got}, the student has {list(expected.shape)}")
    return {name: weights[name] for name in student.state_dict()}
