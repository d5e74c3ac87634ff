"""Shallower transformers: some of the teacher's blocks, as they are and in their order."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from liftplace.common.errors import UsageError
from liftplace.families.family import Conditions, Family

Inputs = tuple[Tensor, Tensor, Conditions]
"""Input of a model: noisy, timesteps, conditions."""


def keep_layers(
    model: nn.Module, family: Family, layers: Sequence[int]
) -> tuple[nn.Module, dict[str, str]]:
    """A model of these blocks of the teacher, with their weights.

    Args:
        model: the teacher, a transformer.
        layers: numbers of blocks, ascending; where there are several lists of blocks (Flux: double
            and single) they are counted through.

    Returns:
        The student, and the teacher's block by the student's, both by module name.

    Raises:
        UsageError: not a transformer, or numbers that do not fit it.
    """
    lengths = _lengths(model.config, family)
    kept = _by_list(lengths, layers)
    config = family.keep_layers_config(model.config, kept)
    layer_map = {
        f"{name}.{new}": f"{name}.{old}" for name in kept for new, old in enumerate(kept[name])
    }
    old_to_new = {old: new for new, old in layer_map.items()}
    weights = {}
    for name, weight in model.state_dict().items():
        block = ".".join(name.split(".")[:2])
        if block in old_to_new:
            weights[old_to_new[block] + name[len(block) :]] = weight.clone()
        elif name.split(".")[0] not in lengths:
            weights[name] = weight.clone()
    with torch.random.fork_rng(devices=[]):  # its first weights are thrown away
        student = family.new(config)
    student.load_state_dict(family.keep_layers_weights(weights, config), assign=True)
    return student.to(model.device), layer_map


def even_layers(config: Mapping[str, Any], family: Family, depth: int) -> list[int]:
    """Numbers of `depth` blocks spread evenly, the first and the last among them.

    Several lists of blocks share the depth in proportion to their lengths.

    Raises:
        UsageError: not a transformer, or a depth that is not less than its own.
    """
    lengths = _lengths(config, family)
    chosen, start = [], 0
    for length, count in zip(lengths.values(), _shares(lengths, depth), strict=True):
        gaps = max(count - 1, 1)
        chosen += [start + (2 * i * (length - 1) + gaps) // (2 * gaps) for i in range(count)]
        start += length
    return chosen


def important_layers(
    config: Mapping[str, Any], family: Family, depth: int, importance: Sequence[float]
) -> list[int]:
    """Numbers of the `depth` most important blocks, ascending; lists of blocks share the depth as
    in `even_layers`."""
    lengths = _lengths(config, family)
    chosen, start = [], 0
    for length, count in zip(lengths.values(), _shares(lengths, depth), strict=True):
        numbers = range(start, start + length)
        chosen += sorted(sorted(numbers, key=lambda i: -importance[i])[:count])
        start += length
    return chosen


@torch.no_grad()
def layer_importance(model: nn.Module, family: Family, batches: Iterable[Inputs]) -> list[float]:
    """How much the output changes when a block is left out: the mean square of the change over
    that of the output, one number a block. Each block is left out alone.

    Args:
        model: the teacher, in evaluation mode.
        batches: its inputs.
    """
    blocks = list(family.blocks(model).values())
    changes, total = torch.zeros(len(blocks), dtype=torch.float64), 0.0
    for batch in batches:
        output = family.predict(model, *batch)
        total += output.double().square().sum().item()
        for number, block in enumerate(blocks):
            handle = block.register_forward_hook(_pass_through, with_kwargs=True)
            try:
                change = family.predict(model, *batch) - output
            finally:
                handle.remove()
            changes[number] += change.double().square().sum().item()
    return (changes / total).tolist()


def _pass_through(block: nn.Module, arguments: tuple, options: dict, output):
    """A block's output as if it were not there."""
    image = arguments[0] if arguments else options["hidden_states"]
    return (options["encoder_hidden_states"], image) if isinstance(output, tuple) else image


def _lengths(config: Mapping[str, Any], family: Family) -> dict[str, int]:
    lengths = family.layers(config)
    if not lengths:
        raise UsageError(
            f"--keep_layers and --depth are for transformers, and this is a {family.class_name}: "
            "use --width, or --drop_blocks for a UNet2DConditionModel"
        )
    return lengths


def _by_list(lengths: Mapping[str, int], layers: Sequence[int]) -> dict[str, list[int]]:
    total = sum(lengths.values())
    if not layers or list(layers) != sorted({*layers} & {*range(total)}):
        raise UsageError(
            f"--keep_layers {','.join(map(str, layers))} does not fit: need ascending numbers of "
            f"blocks from 0 to {total - 1}"
        )
    kept, start = {}, 0
    for name, length in lengths.items():
        kept[name] = [layer - start for layer in layers if start <= layer < start + length]
        start += length
    return kept


def _shares(lengths: Mapping[str, int], depth: int) -> list[int]:
    """How many of `depth` blocks each list keeps: in proportion, at least one of each."""
    total = sum(lengths.values())
    filled = [length for length in lengths.values() if length]
    if not len(filled) <= depth < total:
        raise UsageError(
            f"--depth {depth} does not fit a model of {total} blocks: need {len(filled)} to "
            f"{total - 1}"
        )
    shares, seen = [], 0
    for i, length in enumerate(lengths.values()):
        seen += length
        until = (2 * depth * seen + total) // (2 * total)  # rounded half up
        later = sum(other > 0 for other in list(lengths.values())[i + 1 :])
        until = min(max(until, sum(shares) + (length > 0)), depth - later)
        shares.append(until - sum(shares))
    return shares
