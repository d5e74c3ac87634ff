"""Widths that a U-Net can have: rounded to what its norm groups and attention heads need."""

from collections.abc import Callable, Mapping
from typing import Any

from liftplace.common.errors import UsageError
from liftplace.families.norm_groups import least_channels

TOLERANCE = 1 / 8  # how far a stage may be off the width that was asked for
SUPPORTED_BLOCKS = {
    *("DownBlock2D", "AttnDownBlock2D", "CrossAttnDownBlock2D", "ResnetDownsampleBlock2D"),
    *("UpBlock2D", "AttnUpBlock2D", "CrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
    *("UNetMidBlock2D", "UNetMidBlock2DCrossAttn", None),
}

Config = Mapping[str, Any]
Fits = Callable[[int, int], bool]  # (stage, its new channels)


def narrow_unet(
    config: Config,
    width: float,
    heads: Callable[[float], list[tuple[Fits, Any]]],
    norm_num_groups: int | None = None,
) -> tuple[dict[str, Any], Any]:
    """A U-Net's config with a share of its channels.

    Norm groups stay as many as leave every one its channels (`norm_groups.least_channels`) and can
    be rounded to in every stage.

    Args:
        width: 1 leaves the norm groups as they are.
        heads: ways to choose the attention heads at a width, the best first: what channels each
            allows, and a value that stands for it.
        norm_num_groups: how many groups, if not those.

    Returns:
        Constructor arguments of the student, and the value of the way that was taken.

    Raises:
        UsageError: blocks that cannot be narrowed, or no channels near enough to this width.
    """
    blocks = {*config["down_block_types"], config["mid_block_type"], *config["up_block_types"]}
    if unsupported := sorted(blocks - SUPPORTED_BLOCKS):
        raise UsageError(f"width: cannot narrow blocks of type {unsupported[0]}")

    def round_to(share: float):
        return _round(config, share, heads(share), norm_num_groups)

    rounded = round_to(width)
    if rounded is None:
        steps = sorted((i / 32 for i in range(1, 33)), key=lambda share: abs(share - width))
        near = next((share for share in steps if round_to(share) is not None), None)
        remedy = "no width has" if near is None else f"try {near}"
        groups = "" if norm_num_groups is None else f"{norm_num_groups} "
        raise UsageError(
            f"width {width}: no channels near {width} x {list(config['block_out_channels'])} that "
            f"{groups}norm groups and attention heads divide: {remedy}"
        )
    channels, groups, taken = rounded
    student = {name: value for name, value in config.items() if not name.startswith("_")}
    student |= {"block_out_channels": channels, "norm_num_groups": groups}
    if config["time_embedding_dim"]:
        student["time_embedding_dim"] = 2 * max(1, round(config["time_embedding_dim"] * width / 2))
    return student, taken


def _round(config: Config, width: float, ways: list[tuple[Fits, Any]], fixed: int | None):
    old, groups = config["block_out_channels"], config["norm_num_groups"]
    steps = [step for step in range(groups, 0, -1) if groups % step == 0]
    least = least_channels(old, groups) if width < 1 else 1
    if fixed is not None:
        steps, least = [fixed], 1
    for wanted in range(least, 0, -1):
        for step in steps:
            for fits, taken in ways:
                new = {channels: _nearest(config, channels, width, step, fits) for channels in old}
                # Stages of different width must stay different: between them is a weight.
                if None in new.values() or len(set(new.values())) < len(new):
                    continue
                if min(new.values()) >= wanted * step:
                    return tuple(new[channels] for channels in old), step, taken
    return None


def _nearest(config: Config, old: int, width: float, step: int, fits: Fits) -> int | None:
    """The multiple of `step` nearest to the width of the stages that have `old` channels, the same
    for each as there may be no weight between them; None where none is near enough."""
    stages = [i for i, channels in enumerate(config["block_out_channels"]) if channels == old]
    wanted = old * width
    allowed = [
        new
        for new in range(step, old if width < 1 else old + 1, step)
        if abs(new - wanted) <= TOLERANCE * wanted
        and all(fits(stage, new) for stage in stages)
        and (0 not in stages or _times_fit(config, new))
    ]
    return min(allowed, key=lambda new: (abs(new - wanted), -new), default=None)


def _times_fit(config: Config, new: int) -> bool:
    """Whether the first stage's channels make a time embedding: as many sines as cosines, of
    which each is one of the teacher's."""
    if config["time_embedding_type"] != "positional":
        return True
    even = (config["block_out_channels"][0] - new) % 2 == 0
    return even and new // 2 > config["freq_shift"]


def attended(config: Config) -> set[int]:
    """The stages that have attention."""
    down, up = config["down_block_types"], config["up_block_types"]
    pairs = enumerate(zip(down, reversed(up), strict=True))
    stages = {i for i, types in pairs if any("Attn" in name for name in types)}
    mid = config["mid_block_type"] is not None and config.get("add_attention", True)
    return stages | ({len(down) - 1} if mid else set())
