import json
import shutil

import pytest
import torch
from diffusers import DiffusionPipeline
from safetensors.torch import load_file, save_file

from liftplace.common.errors import UsageError
from liftplace.data.encoder import Encoder
from liftplace.models.loading import (
    LoadedModel,
    check_pair,
    load_model,
    predict,
    read_model_config,
    set_precision,
)
from liftplace.models.saving import save_pipeline
from liftplace.train import NoiseProcess
from tests.families.pipelines import tiny_pipeline
from tests.families.tiny import tiny_model
from tests.train.tiny import assert_same_weights, tiny_unet

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


def half(folder, only=True):
    """A pipeline's folder with fp16 weights, alone or beside others."""
    pipeline = DiffusionPipeline.from_pretrained(folder, dtype=torch.float16)
    if only:
        for path in folder.rglob("*.safetensors"):
            path.unlink()
    of_text = (folder / "text_encoder" / "config.json").read_text()
    pipeline.save_pretrained(folder, variant="fp16")
    (folder / "text_encoder" / "config.json").write_text(of_text)  # by which plain ones are read
    return folder


def test_a_teacher_of_fp16_weights_alone_is_taken_and_said(tmp_path, capsys):
    folder = half(tiny_pipeline("SDXL", tmp_path / "teacher"))
    loaded = load_model(folder)
    assert f"{folder / 'unet'} has weights of the variant fp16 alone" in capsys.readouterr().out
    assert loaded.model.dtype == torch.float32  # it may be trained
    encoder = Encoder(loaded)
    assert encoder.vae is not None and torch.isfinite(encoder.null_text()["text_embeds"]).all()
    load_model(folder, variant="fp16")
    assert capsys.readouterr().out == ""
    with pytest.raises(UsageError, match="--variant bf16: .*unet has no such weights, but fp16"):
        load_model(folder, variant="bf16")


def test_the_variant_that_is_asked_for_is_the_one_that_is_read(tmp_path):
    folder = half(tiny_pipeline("UNet2DConditionModel", tmp_path / "teacher"), only=False)
    plain, fp16 = load_model(folder), load_model(folder, variant="fp16")
    name = "conv_in.weight"
    weight = plain.model.state_dict()[name]
    assert torch.equal(weight.half().float(), fp16.model.state_dict()[name])
    assert not torch.equal(weight, weight.half().float())
    vae, text = Encoder(fp16).vae, Encoder(fp16).null_text()["encoder_hidden_states"]
    assert torch.equal(vae.quant_conv.weight.half().float(), vae.quant_conv.weight)
    assert not torch.equal(text, Encoder(plain).null_text()["encoder_hidden_states"])


def test_shards_of_a_variant_are_read(tmp_path):
    model = tiny_unet()
    model.save_pretrained(tmp_path, variant="fp16", max_shard_size="10KB")
    assert len(list(tmp_path.glob("*.fp16-*.safetensors"))) > 1
    assert_same_weights(load_model(tmp_path).model, model)


def alone(folder, teacher):
    """A student as older versions of prune left it: no scheduler, its teacher in its record."""
    tiny_unet(block_out_channels=(4, 4)).save_pretrained(folder)
    (folder / "liftplace_config.json").write_text(json.dumps({"teacher": str(teacher)}))
    return folder


def test_a_student_that_stands_alone_has_its_teachers_process(tmp_path, capsys):
    teacher = tmp_path / "teacher"
    save_pipeline(tiny_unet(), NoiseProcess.new("v_prediction"), teacher)
    student = load_model(alone(tmp_path / "student", teacher))
    assert student.process().prediction_type == "v_prediction"
    assert Encoder(student).folder == teacher
    assert "no scheduler" not in capsys.readouterr().out


def test_the_process_of_a_student_is_not_guessed_where_its_teacher_is_gone(tmp_path):
    student = load_model(alone(tmp_path / "student", "gone"))
    with pytest.raises(UsageError, match="no scheduler of its own, and its teacher gone is not to"):
        student.process()


def test_the_model_of_a_pipeline_by_its_subfolder_is_of_that_pipeline(teacher_folder):
    loaded = load_model(teacher_folder / "unet")
    assert loaded.folder == str(teacher_folder) and loaded.scheduler is not None


LEGACY = {"DiTTransformer2DModel": "ada_norm_zero", "PixArtTransformer2DModel": "ada_norm_single"}


@pytest.mark.parametrize("name", LEGACY)
def test_the_configs_of_dit_and_pixart_as_they_are_on_the_hub(name, tmp_path):
    """They are of a class that has been split, and name settings that are gone."""
    model = tiny_model(name)
    model.save_pretrained(tmp_path)
    old = {"_class_name": "Transformer2DModel", "norm_type": LEGACY[name]}
    change_config(tmp_path, **old, num_vector_embeds=None, only_cross_attention=False)
    found = load_model(tmp_path).model
    assert type(found) is type(model)
    assert_same_weights(found, model)
    change_config(tmp_path, norm_type="layer_norm")
    with pytest.raises(UsageError, match="is a Transformer2DModel, which is not supported"):
        load_model(tmp_path)


@pytest.mark.parametrize(
    ("name", "channels", "out"),
    [
        ("UNet2DConditionModel", 9, 4),  # inpainting
        ("UNet2DConditionModel", 8, 4),  # instructions on a picture
        ("FluxTransformer2DModel", 96, 16),  # filling in
        ("SD3Transformer2DModel", 9, 4),
    ],
)
def test_models_that_are_given_another_picture_are_refused_with_the_reason(
    name, channels, out, tmp_path
):
    tiny_model(name, in_channels=channels, out_channels=out).save_pretrained(tmp_path)
    with pytest.raises(UsageError, match="beside the noisy image it is given another one or a mas"):
        load_model(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"attention_type": "gated"}, "an input that is not supported: .*fuser"),  # GLIGEN's boxes
        ({"dual_cross_attention": True}, "cannot be run as others of its class: .*encoder_attenti"),
        ({"encoder_hid_dim": 12}, "has encoder_hid_dim_type text_proj, an input that"),
    ],
)
def test_models_that_are_told_more_are_refused_by_what_it_is(changes, message, tmp_path):
    tiny_model("UNet2DConditionModel", **changes).save_pretrained(tmp_path)
    with pytest.raises(UsageError, match=message):
        load_model(tmp_path)
