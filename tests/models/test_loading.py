import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from liftplace.common.errors import UsageError
from liftplace.models.loading import (
    LoadedModel,
    check_pair,
    load_model,
    predict,
    read_model_config,
    set_precision,
)
from liftplace.train import NoiseProcess
from tests.train.tiny import tiny_unet

WEIGHTS = "diffusion_pytorch_model.safetensors"


def test_bare_model_folder_takes_the_standard_process(tmp_path, capsys):
    tiny_unet().save_pretrained(tmp_path)
    loaded = load_model(tmp_path)
    assert loaded.process().prediction_type == "epsilon"
    assert "has no scheduler" in capsys.readouterr().out


def test_flat_folder_brings_its_scheduler(tmp_path):
    tiny_unet().save_pretrained(tmp_path)
    NoiseProcess.new("sample").scheduler.save_pretrained(tmp_path)
    assert load_model(tmp_path).process().prediction_type == "sample"


def change_config(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def drop_a_weight(folder):
    weights = load_file(folder / WEIGHTS)
    del weights["conv_in.bias"]
    save_file(weights, folder / WEIGHTS)


DAMAGE = {
    "no config": (lambda f: (f / "config.json").unlink(), "holds no diffusers model"),
    "not JSON": (lambda f: (f / "config.json").write_text("{"), "cannot read"),
    "class": (
        lambda f: change_config(f, _class_name="AutoencoderKL"),
        "is a AutoencoderKL, which is not supported: need one of .*, UNet2DModel",
    ),
    "no class": (lambda f: change_config(f, _class_name=None), "model of unknown class"),
    "channels": (lambda f: change_config(f, out_channels=3), "out_channels 3 and in_channels 1"),
    "size": (lambda f: change_config(f, sample_size=[8, 9]), "need one number"),
    "no weights": (lambda f: (f / WEIGHTS).unlink(), "has no weights"),
    "cut off": (lambda f: (f / WEIGHTS).write_bytes(b"12345678"), "cannot load the model"),
    "shapes": (lambda f: change_config(f, block_out_channels=[8, 16]), "cannot load the model"),
    "missing": (drop_a_weight, "damaged model: no weights conv_in.bias"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_or_unsupported_model_is_one_clear_line(tmp_path, damage):
    do, message = DAMAGE[damage]
    tiny_unet().save_pretrained(tmp_path)
    do(tmp_path)
    with pytest.raises(UsageError, match=message) as caught:
        load_model(tmp_path)
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_missing_folder():
    with pytest.raises(UsageError, match="no folder /not/there"):
        load_model("/not/there")


def test_hub_name_that_cannot_be_had(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UsageError, match="no folder some/model, and no such model was loaded"):
        load_model("some/model")


def test_config_is_read_without_weights(tmp_path, teacher_folder):
    shutil.copy(teacher_folder / "unet" / "config.json", tmp_path / "config.json")
    from_file = read_model_config(tmp_path / "config.json")
    assert from_file == read_model_config(tmp_path) == read_model_config(teacher_folder)
    assert from_file["sample_size"] == 8


def loaded(scheduler=None, folder="a", **changes) -> LoadedModel:
    return LoadedModel(tiny_unet(**changes), scheduler, folder)


@pytest.mark.parametrize(
    ("student", "message"),
    [
        (
            {"out_channels": 3, "in_channels": 3},
            "do not fit: in_channels is 3 in student and 1 in teacher",
        ),
        ({"out_channels": 2}, "do not fit: out_channels is 2 in student and 1 in teacher"),
        ({"sample_size": 16}, "do not fit: sample_size is 16 in student and 8 in teacher"),
        (
            {"scheduler": {"prediction_type": "sample"}},
            "do not fit: student predicts sample and teacher predicts epsilon",
        ),
    ],
)
def test_student_that_does_not_fit_its_teacher(student, message):
    with pytest.raises(UsageError, match=message):
        check_pair(loaded(folder="student", **student), loaded(folder="teacher"))


def test_smaller_student_of_the_same_process_fits():
    check_pair(
        loaded(block_out_channels=(4, 4), scheduler={"prediction_type": "epsilon"}), loaded()
    )


def test_frozen_teacher_answers_in_its_precision():
    model = set_precision(tiny_unet(), torch.device("cpu"), "bf16")
    noisy = torch.randn(2, 1, 8, 8, dtype=torch.bfloat16)
    answer = predict(model, noisy, torch.tensor([3, 900]))
    assert answer.shape == noisy.shape and answer.dtype == torch.bfloat16
    assert not answer.requires_grad
