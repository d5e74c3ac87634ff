"""What configurations are made of: checked types, bounds, and settings from a YAML file."""

import dataclasses
import types
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from liftplace.common.errors import UsageError

T = TypeVar("T")
MAY_CHANGE = "may change on resume"
MayChange = Annotated[T, MAY_CHANGE]
"""Type of a field that may differ between a run and its resumption, because it does not change
what is learnt, or because the user asks for the change in so many words."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """Base of every configuration. A configuration may be made of several by inheritance: each
    checks its own fields after those of its bases.

    Raises:
        UsageError: a value of the wrong type or out of range, with its name.
    """

    def __post_init__(self) -> None:
        check_types(self)


def may_change_on_resume(config_class: type) -> frozenset[str]:
    """The fields that are annotated with `MayChange`."""
    hints = get_type_hints(config_class, include_extras=True)
    return frozenset(
        field.name
        for field in dataclasses.fields(config_class)
        if MAY_CHANGE in getattr(hints[field.name], "__metadata__", ())
    )


def check_types(config) -> None:
    """Bring the fields of a frozen dataclass to their annotated types (an int to a float, a list
    to a tuple).

    Raises:
        UsageError: a value does not have its field's type.
    """
    for name, hint in _hints(type(config)).items():
        object.__setattr__(config, name, _convert(name, getattr(config, name), hint))


def read_yaml(path: str | Path, config_class: type) -> dict[str, Any]:
    """The settings of a YAML file, ready to be passed to `config_class`.

    Raises:
        UsageError: the file cannot be read, holds something else than settings, or names one that
            does not exist.
    """
    import yaml

    try:
        settings = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read --config {path}: {error}") from error
    except yaml.YAMLError as error:
        raise UsageError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if settings is None:
        return {}
    if not isinstance(settings, dict):
        raise UsageError(f"{path} must hold lines like 'learning_rate: 1e-4', got {settings!r}")
    known = _hints(config_class)
    if "resize_mode" in known:
        settings = of_today(settings)
    for name in settings:
        if name not in known:
            nearest = get_close_matches(str(name), known, n=1, cutoff=0.0)[0]
            raise UsageError(f"{path}: there is no setting {name!r}; the nearest is {nearest!r}")
    return {name: _as_meant(value, known[name]) for name, value in settings.items()}


def of_today(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings that an older version may have written, as this one names them: `center_crop` was
    what decided between cropping and squashing before `resize_mode`."""
    if "center_crop" not in settings or "resize_mode" in settings:
        return settings
    mode = "crop" if settings["center_crop"] else "squash"
    return {k: v for k, v in settings.items() if k != "center_crop"} | {"resize_mode": mode}


def at_least(smallest, config, *names: str) -> None:
    """Raises UsageError if one of these fields is smaller; None is fine."""
    for name in names:
        value = getattr(config, name)
        if value is not None and not value >= smallest:
            raise UsageError(f"{name} must be at least {smallest}, got {value}")


def positive(config, *names: str) -> None:
    """Raises UsageError if one of these fields is not greater than 0; None is fine."""
    for name in names:
        value = getattr(config, name)
        if value is not None and not value > 0:
            raise UsageError(f"{name} must be greater than 0, got {value}")


def between(smallest, largest, config, *names: str) -> None:
    """Raises UsageError if one of these fields is outside [smallest, largest]."""
    for name in names:
        if not smallest <= getattr(config, name) <= largest:
            value = getattr(config, name)
            raise UsageError(f"{name} must be in [{smallest}, {largest}], got {value}")


def split_names(text: str | tuple[str, ...]) -> tuple[str, ...]:
    """Names with commas or spaces between them, each once."""
    together = text if isinstance(text, str) else " ".join(text)
    return tuple(dict.fromkeys(together.replace(",", " ").split()))


@cache
def _hints(config_class: type) -> dict[str, Any]:
    hints = get_type_hints(config_class)
    return {field.name: hints[field.name] for field in dataclasses.fields(config_class)}


def _as_meant(value, hint):
    """Undo what YAML 1.1 does to 1e-4 (text, for want of a dot) and to a bare no (false)."""
    if value is False and "no" in get_args(hint):
        return "no"
    if isinstance(value, str) and float in _alternatives(hint):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _convert(name: str, value, hint):
    alternatives = _alternatives(hint)
    for alternative in alternatives:
        if get_origin(alternative) is Literal:
            if value in get_args(alternative) and isinstance(value, str):
                return value
        elif get_origin(alternative) is tuple:
            items = value if isinstance(value, (list, tuple)) else [value]
            if all(type(item) is get_args(alternative)[0] for item in items):
                return tuple(items)
        elif alternative is float and type(value) in (int, float):
            return float(value)
        elif type(value) is alternative:
            return value
    raise UsageError(f"{name} must be {_spell(alternatives)}, got {value!r}")


def _alternatives(hint) -> tuple:
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def _spell(alternatives) -> str:
    kinds = {bool: "true or false", int: "an integer", float: "a number", str: "text"}
    words = []
    for alternative in alternatives:
        if get_origin(alternative) is Literal:
            words += get_args(alternative)
        elif get_origin(alternative) is tuple:
            kind = {int: "integers", str: "texts"}[get_args(alternative)[0]]
            words.append(f"a list of {kind}")
        elif alternative is not types.NoneType:
            words.append(kinds[alternative])
    return " or ".join(words) if len(words) < 3 else "one of " + ", ".join(words)
