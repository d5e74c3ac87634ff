import json

import pytest
from diffusers import DDPMPipeline, DiffusionPipeline, DiTPipeline

from liftplace.common.errors import UsageError
from liftplace.models.loading import load_model
from liftplace.models.saving import read_record, save_pipeline
from liftplace.train import NoiseProcess
from tests.families.pipelines import sample, tiny_pipeline
from tests.families.tiny import tiny_model
from tests.train.tiny import assert_same_weights, process, tiny_unet


def test_unconditional_unet_becomes_a_ddpm_pipeline(tmp_path):
    model = tiny_unet(seed=3)
    save_pipeline(model, NoiseProcess.new("v_prediction"), tmp_path)
    pipeline = DDPMPipeline.from_pretrained(tmp_path)
    assert_same_weights(pipeline.unet, model)
    assert pipeline.scheduler.config.prediction_type == "v_prediction"
    assert {path.name for path in tmp_path.iterdir()} == {"model_index.json", "scheduler", "unet"}


def test_saving_again_replaces_the_model_and_nothing_else(tmp_path):
    save_pipeline(tiny_unet(seed=1), process(), tmp_path)
    (tmp_path / "metrics.jsonl").write_text("{}")
    save_pipeline(tiny_unet(seed=2), process(), tmp_path)
    assert_same_weights(load_model(tmp_path).model, tiny_unet(seed=2))
    assert (tmp_path / "metrics.jsonl").read_text() == "{}"


def test_other_parts_of_the_teachers_pipeline_are_copied(tmp_path):
    teacher = tiny_pipeline("DiTTransformer2DModel", tmp_path / "teacher")
    (teacher / "checkpoint-1").mkdir()  # what a run leaves beside its pipeline
    (teacher / "metrics.jsonl").write_text("{}")
    student = tiny_model("DiTTransformer2DModel", seed=5, num_layers=2)
    save_pipeline(student, NoiseProcess.new("epsilon"), tmp_path / "student", base_pipeline=teacher)
    parts = {"model_index.json", "scheduler", "transformer", "vae"}
    assert {path.name for path in (tmp_path / "student").iterdir()} == parts
    pipeline = DiTPipeline.from_pretrained(tmp_path / "student")
    assert_same_weights(pipeline.transformer, student)
    assert sample(tmp_path / "student").shape == (16, 16, 3)


def test_a_copy_has_weights_once_and_without_a_variant(tmp_path):
    teacher = tiny_pipeline("UNet2DConditionModel", tmp_path / "teacher")
    stock = DiffusionPipeline.from_pretrained(teacher)
    stock.save_pretrained(teacher, variant="fp16")
    (teacher / "vae" / "diffusion_pytorch_model.safetensors").unlink()  # there fp16 alone
    (teacher / "text_encoder" / "pytorch_model.bin").write_bytes(b"the same once more")
    student = tiny_model("UNet2DConditionModel", seed=5)
    save_pipeline(student, NoiseProcess.new("epsilon"), tmp_path / "student", base_pipeline=teacher)
    weights = {
        path.relative_to(tmp_path / "student").as_posix()
        for path in (tmp_path / "student").glob("*/*model*")
    }
    assert weights == {
        "text_encoder/model.safetensors",
        "unet/diffusion_pytorch_model.safetensors",
        "vae/diffusion_pytorch_model.safetensors",
    }
    assert sample(tmp_path / "student").shape == (16, 16, 3)


def test_shards_of_a_variant_are_copied_under_a_plain_index(tmp_path):
    teacher = tiny_pipeline("UNet2DConditionModel", tmp_path / "teacher")
    stock = DiffusionPipeline.from_pretrained(teacher)
    for path in teacher.rglob("*.safetensors"):
        path.unlink()
    stock.save_pretrained(teacher, variant="fp16", max_shard_size="10KB")
    assert (teacher / "text_encoder" / "model.safetensors.index.fp16.json").is_file()
    save_pipeline(stock.unet, process(), tmp_path / "student", base_pipeline=teacher)
    again = DiffusionPipeline.from_pretrained(tmp_path / "student")
    assert_same_weights(again.text_encoder, stock.text_encoder)
    assert_same_weights(again.vae, stock.vae)


def test_a_flat_pipeline_as_the_first_ones_of_the_hub_are(tmp_path):
    teacher = tiny_pipeline("UNet2DModel", tmp_path / "teacher")
    for part in ("unet", "scheduler"):
        for path in (teacher / part).iterdir():
            path.rename(teacher / path.name)
        (teacher / part).rmdir()
    loaded = load_model(teacher)
    save_pipeline(loaded.model, loaded.process(), tmp_path / "student", base_pipeline=teacher)
    assert sample(tmp_path / "student").shape == sample(teacher).shape == (8, 8, 3)


def test_a_safety_checker_that_is_not_there_is_not_asked_for(tmp_path):
    teacher = tiny_pipeline("UNet2DConditionModel", tmp_path / "teacher")
    index = json.loads((teacher / "model_index.json").read_text())
    index |= {"safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"]}
    (teacher / "model_index.json").write_text(json.dumps(index | {"requires_safety_checker": True}))
    model = load_model(teacher).model
    save_pipeline(model, process(), tmp_path / "student", base_pipeline=teacher)
    assert sample(tmp_path / "student").shape == (16, 16, 3)


def test_the_index_names_the_class_of_the_student(tmp_path):
    teacher = tiny_pipeline("DiTTransformer2DModel", tmp_path / "teacher")
    index = json.loads((teacher / "model_index.json").read_text())
    index["transformer"] = ["diffusers", "Transformer2DModel"]  # as on the Hub
    (teacher / "model_index.json").write_text(json.dumps(index))
    model = load_model(teacher).model
    save_pipeline(model, process(), tmp_path / "student", base_pipeline=teacher)
    index = json.loads((tmp_path / "student" / "model_index.json").read_text())
    assert index["transformer"] == ["diffusers", "DiTTransformer2DModel"]


def test_model_without_a_pipeline_stands_beside_its_scheduler(tmp_path):
    model = tiny_model("UNet2DModel", num_class_embeds=10)
    save_pipeline(model, NoiseProcess.new("flow"), tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"scheduler", "unet"}
    assert load_model(tmp_path).process().prediction_type == "flow"


def test_damaged_record_is_one_line(tmp_path):
    (tmp_path / "liftplace_config.json").write_text("{")
    with pytest.raises(UsageError, match="cannot read .*liftplace_config.json"):
        read_record(tmp_path)
