"""Model families: what the toolkit has to know about a diffusers model class, one file each.

A file of this folder that defines `FAMILY` is a family; there is no other list of them.
"""

from collections.abc import Mapping
from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from torch import nn

from liftplace.common.errors import UsageError
from liftplace.families.family import Family

__all__ = ["Family", "families", "family_of", "family_of_model"]

# Classes of old configs, by their norms: diffusers loads them as these.
TRANSFORMER_2D = {
    "ada_norm_zero": "DiTTransformer2DModel",
    "ada_norm_single": "PixArtTransformer2DModel",
}


@cache
def families() -> dict[str, Family]:
    """Every family by the name of its diffusers class."""
    modules = (import_module(f"{__name__}.{module.name}") for module in iter_modules(__path__))
    every = (module.FAMILY for module in modules if hasattr(module, "FAMILY"))
    return {family.class_name: family for family in every}


def family_of(config: Mapping[str, Any], source: object = "the model") -> Family:
    """The family of a model with this config.json.

    Args:
        config: of a diffusers model, with its `_class_name`.
        source: where the config is from, for the errors.

    Raises:
        UsageError: no family, or one of its models that cannot be trained here.
    """
    name = config.get("_class_name")
    if name == "Transformer2DModel":
        name = TRANSFORMER_2D.get(config.get("norm_type"), name)
    if name not in families():
        raise UsageError(
            f"{source} is a {name or 'model of unknown class'}, which is not supported: "
            f"need one of {', '.join(sorted(families()))}"
        )
    family = families()[name]
    complete = family.complete(config)
    reason = family.unsupported_reason(complete)
    if reason is not None:
        raise UsageError(f"{source} {reason}")
    return family


def family_of_model(model: nn.Module) -> Family:
    return families()[type(model).__name__]
