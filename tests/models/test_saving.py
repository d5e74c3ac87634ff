import pytest
from diffusers import DDPMPipeline, DiTPipeline

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


def test_model_without_a_pipeline_stands_beside_its_scheduler(tmp_path):
    model = tiny_model("UNet2DModel", num_class_embeds=10)
    save_pipeline(model, NoiseProcess.new("flow"), tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"scheduler", "unet"}
    assert load_model(tmp_path).process().prediction_type == "flow"


def test_damaged_record_is_one_line(tmp_path):
    (tmp_path / "liftplace_config.json").write_text("{")
    with pytest.raises(UsageError, match="cannot read .*liftplace_config.json"):
        read_record(tmp_path)
