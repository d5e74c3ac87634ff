"""Names of files of weights, as diffusers and transformers write them: which of them are read."""

import re
from collections.abc import Iterable

from liftplace.common.errors import UsageError

_WEIGHTS = re.compile(r"(?:diffusion_pytorch_)?model(?P<before>.*)\.safetensors(?P<after>.*)")
_SHARD = r"-\d{5}-of-\d{5}"
PLAIN = ""


def variant_of(name: str) -> str | None:
    """The variant of a file of weights, such as fp16 or non_ema; PLAIN without one, and None for a
    file that holds no weights of diffusers (a checkpoint of another program, a config).

    Shards and their index are of their variant: model.fp16-00001-of-00002.safetensors,
    model-00001-of-00002.fp16.safetensors, model.safetensors.index.fp16.json.
    """
    match = _WEIGHTS.fullmatch(name)
    if match is None:
        return None
    before = re.sub(_SHARD, "", match["before"])
    variant = before + re.sub(r"\.(index|json)\b", "", match["after"])
    return variant[1:] if re.fullmatch(r"(\.[\w-]+)?", variant) else None


def variants_in(names: Iterable[str]) -> set[str]:
    """The variants of which there are weights among the files of one folder."""
    return {variant for name in names if (variant := variant_of(name)) is not None}


def variant_to_read(names: Iterable[str], asked: str | None, where: object) -> str | None:
    """The variant, as `from_pretrained` takes it, of which a folder's weights are read: that which
    is asked for, where the folder has it; else the plain ones; else the only one.

    Raises:
        UsageError: several variants, of which none is asked for, and no plain weights.
    """
    found = variants_in(names)
    if asked in found:
        return asked or None
    if PLAIN in found or not found:
        return None
    if len(found) > 1:
        raise UsageError(
            f"{where} has weights of the variants {', '.join(sorted(found))}: say with --variant "
            "which to take"
        )
    return found.pop()


def plain_name(name: str) -> str:
    """The name of a file of weights without its variant. A shard keeps its own, by which its index
    knows it."""
    variant = variant_of(name)
    return name.replace(f".{variant}", "", 1) if variant and not re.search(_SHARD, name) else name
