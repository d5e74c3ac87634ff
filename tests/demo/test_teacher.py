"""The shipped teacher: what its README says is what the folder holds."""

import hashlib
import json
import re
import shlex
from pathlib import Path

import pytest

import liftplace.demo
from liftplace.cli import main
from liftplace.models.costs import count_parameters
from liftplace.models.loading import load_model
from liftplace.train import commands

TEACHER = Path(liftplace.demo.__file__).parent / "teacher"
WEIGHTS = TEACHER / "unet" / "diffusion_pytorch_model.safetensors"
README = (TEACHER / "README.md").read_text()


def test_weights_are_those_of_the_readme_and_small():
    assert hashlib.sha256(WEIGHTS.read_bytes()).hexdigest() in README
    assert WEIGHTS.stat().st_size < 5_000_000
    assert f"({WEIGHTS.stat().st_size:,} bytes)" in README


def test_the_command_makes_this_architecture_and_process(monkeypatch):
    configs = []
    monkeypatch.setattr(commands, "train", configs.append)
    command = shlex.split(re.search(r"^liftplace (train .*)$", README, re.MULTILINE)[1])
    with pytest.raises(SystemExit) as end:
        main(command)
    assert not end.value.code
    (config,) = configs
    loaded = load_model(TEACHER)
    shipped = loaded.model
    made = commands._new_model(config, loaded.family, None, 1, config.resolution)
    assert _described(made) == _described(shipped)
    assert f"{count_parameters(shipped):,} parameters" in README
    process = commands.NoiseProcess.new(
        config.prediction_type, config.ddpm_num_steps, config.ddpm_beta_schedule
    )
    spacing = {"timestep_spacing": "leading"}  # by hand, as the README says
    assert _described(process.scheduler) | spacing == _described(loaded.process().scheduler)


def _described(configured):
    """The config as JSON has it, without diffusers' notes on where it came from."""
    config = json.loads(configured.to_json_string())
    return {name: value for name, value in config.items() if not name.startswith("_")}


def test_the_folder_names_no_path_of_a_machine():
    for file in TEACHER.rglob("*.json"):
        assert not [
            value
            for value in json.loads(file.read_text()).values()
            if isinstance(value, str) and ("/" in value or "\\" in value)
        ]
