"""The settings that the studies on a GPU are made with, as far as a CPU can try them."""

import json
import re
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, UNet2DModel
from diffusers.models.attention_processor import Attention
from diffusers.models.embeddings import Timesteps
from torch import nn

from liftplace.cli import main
from liftplace.common.settings import read_yaml
from liftplace.data import idx
from liftplace.models.costs import count_macs, count_parameters
from liftplace.models.loading import read_model_config
from liftplace.models.saving import save_pipeline
from liftplace.train import DistillConfig
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
        images = ("--dataset_name", "fashion-mnist", "--output_dir", tmp_path / "out")
        run("train", "--config", FASHION, *images, "--dry_run")
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


def celeba_student(name):
    changes = read_model_config(CONFIGS / name)
    return celeba_unet(**{key: value for key, value in changes.items() if key[0] != "_"})


def norms(model):
    return [module for module in model.modules() if isinstance(module, nn.GroupNorm)]


def test_celeba_student_is_the_papers_as_far_as_diffusers_goes():
    model = celeba_student("celeba_student.json")
    assert count_parameters(model) == 1_331_103
    narrow = [norm.num_channels == norm.num_groups for norm in norms(model)]
    assert (len(narrow), sum(narrow), narrow[-1]) == (61, 35, True)
    assert model.conv_norm_out is norms(model)[-1]
    # What the paper's has otherwise; nothing else is between this and its number of parameters.
    for block, before, kept in ((0, 64 + 32, 51), (1, 32 + 32, 25), (3, 32 + 32, 25)):
        resnet, up = model.up_blocks[block].resnets[2], model.up_blocks[block].upsamplers[0]
        wide = resnet.conv2.out_channels
        resnet.conv2 = nn.Conv2d(wide, kept, 3, padding=1)
        resnet.conv_shortcut = nn.Conv2d(before, kept, 1)
        up.conv, up.channels = nn.Conv2d(kept, wide, 3, padding=1), kept
    attention = {"heads": 1, "norm_num_groups": 32, "residual_connection": True, "bias": True}
    model.mid_block.attentions[0] = Attention(
        64, dim_head=51, _from_deprecated_attn_block=True, **attention
    )
    model.time_proj = Timesteps(128, flip_sin_to_cos=False, downscale_freq_shift=1)
    model.time_embedding.linear_1 = nn.Linear(128, 51)
    model.down_blocks[1].resnets[0].conv_shortcut = nn.Conv2d(32, 32, 1)
    assert count_parameters(model) == 1_312_076
    with torch.no_grad():  # and they fit together
        assert model(torch.randn(1, 3, 64, 64), torch.tensor([5])).sample.shape == (1, 3, 64, 64)


def test_celeba_student_of_wide_norms_has_the_same_weights():
    wide, narrow = (celeba_student(f"celeba_student{name}.json") for name in ("_wide", ""))
    assert min(norm.num_channels // norm.num_groups for norm in norms(wide)) == 4
    shapes = [{n: w.shape for n, w in model.state_dict().items()} for model in (wide, narrow)]
    assert shapes[0] == shapes[1]
    assert {k for k, v in wide.config.items() if v != narrow.config[k]} == {"norm_num_groups"}


def test_celeba_students_cost_what_the_estimate_of_gpu_hours_says():
    teacher, student = count_macs(celeba_unet()), count_macs(celeba_student("celeba_student.json"))
    assert round(teacher / 1e9, 2) == 24.05 and round(student / 1e9, 2) == 0.79
    flops = 2 * 96 * (teacher + 3 * student) * 500_000
    assert round(flops / 1e18, 1) == 2.5 and round(flops / 495e12 / 3600, 1) == 1.4


def test_celeba_scheduler_is_the_papers():
    scheduler = DDIMScheduler.from_config(
        json.loads((CONFIGS / "celeba_scheduler.json").read_text())
    )
    scheduler.set_timesteps(100)
    assert scheduler.timesteps.tolist() == list(range(990, -1, -10))
    assert not scheduler.config.clip_sample and scheduler.config.prediction_type == "epsilon"


@pytest.mark.parametrize(
    ("arm", "groups"), [("celeba_student.json", 4), ("celeba_student_wide.json", 1)]
)
def test_celeba_row_starts_on_a_small_teacher(tmp_path, capsys, arm, groups):
    teacher, start = tmp_path / "teacher", tmp_path / "start"
    model = celeba_unet(block_out_channels=(16, 16, 16, 16, 32), norm_num_groups=4)
    save_pipeline(model, process(), teacher)
    save_images(tmp_path / "celeba64", ["1.jpg", "2.jpg"], size=64)
    named = ("--pretrained_teacher_name_or_path", teacher)
    student = tmp_path / "student.json"
    small = {"block_out_channels": (4, 4, 4, 4, 8), "attention_head_dim": 3}
    config = read_model_config(CONFIGS / arm) | small | {"norm_num_groups": groups}
    student.write_text(json.dumps(config))
    images = ("--train_data_dir", tmp_path / "celeba64")
    taylor = ("--importance", "taylor", "--num_batches", 1, *images, "--output_dir", start)
    run("prune", *named, "--student_config", student, *taylor)
    pruned = UNet2DModel.from_pretrained(start, subfolder="unet")
    assert pruned.config.time_embedding_dim == 51 and pruned.config.dropout == 0.1
    printed = capsys.readouterr().out
    assert f"norm groups 4 -> {groups}, at least 4 -> {4 // groups} channels a group" in printed
    assert ("have one channel a group" in printed) == (groups == 4)
    places = (*named, "--student", start, *images, "--output_dir", tmp_path / "out")
    run("distill", "--preset", "ddpm", "--config", CELEBA, *places, "--dry_run")
    planned = table_of(capsys.readouterr().out)
    assert number_in(planned["teacher"]) == count_parameters(model)
    assert number_in(planned["effective batch"]) == 96
    assert number_in(planned["steps"]) == 500_000
    assert planned["norm groups"].startswith(f"4 -> {groups}")


def test_celeba_row_adds_no_setting_to_the_preset_but_paths_and_size():
    named = read_yaml(CELEBA, DistillConfig)
    config = DistillConfig.of_preset("ddpm", **named)
    preset = DistillConfig.of_preset("ddpm")
    config.check_complete()
    changed = {name for name in named if getattr(config, name) != getattr(preset, name)}
    assert changed == named.keys()
    paths = {"pretrained_teacher_name_or_path", "student", "train_data_dir", "output_dir"}
    assert changed == paths | {"resolution", "dataloader_num_workers"}
