from dataclasses import dataclass
from typing import Literal

import pytest

from liftplace.common.errors import UsageError
from liftplace.common.settings import check_types, read_yaml, split_names


@dataclass(frozen=True)
class Settings:
    rate: float = 1.0
    steps: int | None = None
    levels: tuple[int, ...] = ()
    precision: Literal["no", "bf16"] = "no"
    weight: float | Literal["adaptive"] = "adaptive"
    ema: bool = False

    def __post_init__(self):
        check_types(self)


def test_values_come_to_their_types():
    settings = Settings(rate=2, levels=[8, 16], weight=1)
    assert (settings.rate, type(settings.rate)) == (2.0, float)
    assert settings.levels == (8, 16)
    assert settings.weight == 1.0
    assert Settings(levels=8).levels == (8,)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"rate": "fast"}, "rate must be a number, got 'fast'"),
        ({"steps": 1.5}, "steps must be an integer, got 1.5"),
        ({"steps": True}, "steps must be an integer, got True"),
        ({"levels": [8, "x"]}, "levels must be a list of integers"),
        ({"precision": "fp8"}, "precision must be no or bf16, got 'fp8'"),
        ({"weight": "fixed"}, "weight must be a number or adaptive, got 'fixed'"),
        ({"ema": 1}, "ema must be true or false, got 1"),
    ],
)
def test_a_wrong_type_is_named(wrong, message):
    with pytest.raises(UsageError, match=message.replace("[", r"\[")):
        Settings(**wrong)


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def test_yaml_is_read_as_it_was_meant(tmp_path):
    file = write(tmp_path / "a.yaml", "rate: 1e-4\nlevels: [8, 16]\nprecision: no\nema: yes\n")
    assert Settings(**read_yaml(file, Settings)) == Settings(1e-4, None, (8, 16), "no", ema=True)


def test_empty_yaml_changes_nothing(tmp_path):
    assert read_yaml(write(tmp_path / "a.yaml", ""), Settings) == {}


@pytest.mark.parametrize("key, nearest", [("rates", "rate"), ("step", "steps"), ("Ema", "ema")])
def test_unknown_key_suggests_the_nearest(tmp_path, key, nearest):
    file = write(tmp_path / "a.yaml", f"{key}: 1\n")
    with pytest.raises(UsageError, match=f"no setting '{key}'; the nearest is '{nearest}'"):
        read_yaml(file, Settings)


@pytest.mark.parametrize(
    ("text", "message"),
    [("- 1\n", "must hold lines like"), ("a: [\n", "is not YAML"), ("7: 1\n", "no setting 7")],
)
def test_other_yaml_is_refused_in_one_line(tmp_path, text, message):
    with pytest.raises(UsageError, match=message) as caught:
        read_yaml(write(tmp_path / "a.yaml", text), Settings)
    assert "\n" not in str(caught.value)


def test_missing_yaml(tmp_path):
    with pytest.raises(UsageError, match="cannot read --config"):
        read_yaml(tmp_path / "none.yaml", Settings)


def test_split_names():
    assert split_names("fd,kid  is") == split_names(("fd", "kid,is", "fd")) == ("fd", "kid", "is")
    assert split_names(" , ") == ()
