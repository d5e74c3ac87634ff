"""The settings that the studies on a GPU are made with, as far as a CPU can try them."""

import re
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch
from diffusers import UNet2DModel

from liftplace.cli import main
from liftplace.data import idx
from liftplace.settings import read_yaml
from liftplace.students.report import count_parameters
from liftplace.train import DistillConfig
from liftplace.train.models import read_model_config
from liftplace.train.result import save_pipeline
from tests.data.pictures import save_images
from tests.data.test_idx import write
from tests.train.tiny import process

CONFIGS = Path(__file__).parents[2] / "benchmarks" / "configs"
CELEBA, FASHION = CONFIGS / "celeba_ddpm.yaml", CONFIGS / "fashion_teacher.yaml"


def table_of(text):
    """The lines of --dry_run by their names."""
    return dict(re.split(r"\s{2,}", line, maxsplit=1) for line in text.splitlines() if "  " in line)


def run(*arguments):
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    assert ended.value.code == 0


def number_in(text):
    return int(re.search(r"[\d,]+", text)[0].replace(",", ""))


def test_fashion_teacher_is_of_the_size_that_was_asked_for(tmp_path, capsys):
    write(tmp_path, "train", np.zeros((20, 28, 28)), np.arange(20) % 10)
    with patch.object(idx, "FASHION_FOLDER", str(tmp_path)):
        run("train", "--config", FASHION, "--dataset_name", "fashion-mnist", "--output_dir",
            tmp_path / "out", "--dry_run")  # fmt: skip
    planned = table_of(capsys.readouterr().out)
    assert 3e6 < number_in(planned["model"]) < 16e6 / 4  # at most 16 MB of float32
    assert number_in(planned["effective batch"]) == 128
    assert not (tmp_path / "out").exists()  # a dry run trains nothing


def celeba_unet(**changes):
    config = read_model_config(CONFIGS / "celeba_unet.json") | changes
    return UNet2DModel(**{name: value for name, value in config.items() if name[0] != "_"})


def test_celeba_teacher_is_the_papers():
    with torch.device("meta"):
        assert count_parameters(celeba_unet()) == 78_700_803


def test_celeba_row_starts_on_a_small_teacher(tmp_path, capsys):
    teacher, start = tmp_path / "teacher", tmp_path / "start"
    model = celeba_unet(block_out_channels=(16, 16, 16, 16, 32), norm_num_groups=4)
    save_pipeline(model, process(), teacher)
    save_images(tmp_path / "celeba64", ["1.jpg", "2.jpg"], size=64)
    named = ("--pretrained_teacher_name_or_path", teacher)
    run("prune", *named, "--width", 0.5, "--output_dir", start)
    capsys.readouterr()
    places = ("--train_data_dir", tmp_path / "celeba64", "--output_dir", tmp_path / "out")
    run("distill", "--preset", "ddpm", "--config", CELEBA, *named, "--student", start, *places,
        "--dry_run")  # fmt: skip
    planned = table_of(capsys.readouterr().out)
    assert number_in(planned["teacher"]) == count_parameters(model)
    assert number_in(planned["effective batch"]) == 96


def test_celeba_row_adds_no_setting_to_the_preset_but_paths_and_size():
    ours = read_yaml(CELEBA, DistillConfig)
    config = DistillConfig.of_preset("ddpm", **ours)
    preset = DistillConfig.of_preset("ddpm")
    config.check_complete()
    changed = {name for name in ours if getattr(config, name) != getattr(preset, name)}
    assert changed == ours.keys()
    assert changed == {
        "pretrained_teacher_name_or_path", "student", "train_data_dir", "output_dir", "resolution",
        "dataloader_num_workers",
    }  # fmt: skip
