import json
from pathlib import Path

import pytest
import yaml
from diffusers import DDPMPipeline, DiTPipeline, UNet2DModel
from huggingface_hub import ModelCard

from liftplace.errors import UsageError
from liftplace.train import NoiseProcess
from liftplace.train.metrics import JsonLinesTracker
from liftplace.train.models import LoadedModel, load_model
from liftplace.train.result import (
    check_push,
    describe,
    loading_line,
    read_record,
    save_pipeline,
)
from tests.families.pipelines import sample, tiny_pipeline
from tests.families.tiny import tiny_model
from tests.train.tiny import assert_same_weights, config_for, process, tiny_unet


def test_unconditional_unet_becomes_a_ddpm_pipeline(tmp_path):
    model = tiny_unet(seed=3)
    save_pipeline(model, NoiseProcess.new("v_prediction"), tmp_path)
    pipeline = DDPMPipeline.from_pretrained(tmp_path)
    assert_same_weights(pipeline.unet, model)
    assert pipeline.scheduler.config.prediction_type == "v_prediction"
    assert {path.name for path in tmp_path.iterdir()} == {"model_index.json", "scheduler", "unet"}
    assert loading_line(tmp_path, model) == f'DDPMPipeline.from_pretrained("{tmp_path}")'


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
    save_pipeline(student, NoiseProcess.new("epsilon"), tmp_path / "student", like=teacher)
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
    line = loading_line(tmp_path, model)
    assert line == f'UNet2DModel.from_pretrained("{tmp_path}", subfolder="unet")'
    assert_same_weights(eval(line, {"UNet2DModel": UNet2DModel}), model)


@pytest.fixture
def described(tmp_path):
    """The folder of a run with two lines of metrics and a picture."""
    config = config_for(
        tmp_path / "run", pretrained_teacher_name_or_path=str(tmp_path / "teacher"), loss="place"
    )
    (tmp_path / "teacher").mkdir()
    (tmp_path / "run" / "samples").mkdir(parents=True)
    (tmp_path / "run" / "samples" / "student-000006.png").write_bytes(b"")
    tracker = JsonLinesTracker(tmp_path / "run" / "metrics.jsonl")
    tracker.log({"loss": 2.5}, step=5)
    tracker.log({"loss": 1.25}, step=6)
    student = LoadedModel(tiny_unet(block_out_channels=(4, 4)), None, "the new student")
    describe(config, student, LoadedModel(tiny_unet(), None, str(tmp_path / "teacher")))
    return Path(config.output_dir)


def test_model_card_has_teacher_recipe_and_figures(described):
    card = ModelCard.load(described / "README.md")
    assert card.data.library_name == "diffusers" and "liftplace" in card.data.tags
    assert card.data.base_model is None  # a folder of this machine is no model of the Hub
    ours, theirs = (
        sum(weight.numel() for weight in tiny_unet(block_out_channels=channels).parameters())
        for channels in ((4, 4), (8, 8))
    )
    for text in (
        "A student of `teacher`",
        f"| teacher | {theirs:,} | 100 % |",
        f"| student | {ours:,} | {ours / theirs:.1%} |",
        "| loss | place |",
        "Training terms at step 6",
        "| loss | 1.25 |",
        "![samples](samples/student-000006.png)",
    ):
        assert text in card.text


def test_model_card_has_the_last_scores_and_where_a_better_model_is(described):
    tracker = JsonLinesTracker(described / "metrics.jsonl")
    tracker.log({"loss": 1.0, "evaluation/FD-Lite0": 42.0}, step=7)
    tracker.log({"loss": 0.5}, step=8)
    (described / "best").mkdir()
    best = {"step": 4, "metric": "fd", "value": 40.0}
    (described / "best" / "best.json").write_text(json.dumps(best))
    models = [LoadedModel(tiny_unet(), None, "one") for _ in range(2)]
    describe(config_for(described), *models)
    card = ModelCard.load(described / "README.md").text
    scores, terms = card.split("Training terms at step 8")
    assert "at step 7" in scores and "| FD-Lite0 | 42 |" in scores
    assert "The best model by fd, 40, is that of step 4, in `best`." in scores
    assert "| loss | 0.5 |" in terms and "FD-Lite0" not in terms
    assert read_record(described / "best") == read_record(described) != {}


def test_record_has_the_layer_map(described):
    record = json.loads((described / "liftplace_config.json").read_text())
    blocks = ["down_blocks.0", "down_blocks.1", "mid_block", "up_blocks.0", "up_blocks.1"]
    assert record["layer_map"] == {name: name for name in blocks}
    assert record["distill"]["loss"] == "place"
    assert read_record(described) == record


def test_layer_map_of_a_pruned_student_is_kept(tmp_path):
    student = tiny_model("DiTTransformer2DModel", num_layers=2)
    student.save_pretrained(tmp_path / "pruned")
    layer_map = {"transformer_blocks.0": "transformer_blocks.1", "transformer_blocks.1": "x"}
    (tmp_path / "pruned" / "liftplace_config.json").write_text(
        json.dumps({"layer_map": layer_map, "prune": {"depth": 2}})
    )
    config = config_for(tmp_path / "run", pretrained_teacher_name_or_path="some/teacher")
    (tmp_path / "run").mkdir()
    describe(
        config,
        LoadedModel(student, None, str(tmp_path / "pruned")),
        LoadedModel(tiny_model("DiTTransformer2DModel"), None, "cached"),
    )
    record = read_record(tmp_path / "run")
    assert record["layer_map"] == layer_map and record["prune"] == {"depth": 2}
    card = (tmp_path / "run" / "README.md").read_text()
    assert yaml.safe_load(card.split("---")[1])["base_model"] == "some/teacher"


def test_damaged_record_is_one_line(tmp_path):
    (tmp_path / "liftplace_config.json").write_text("{")
    with pytest.raises(UsageError, match="cannot read .*liftplace_config.json"):
        read_record(tmp_path)


def test_push_without_the_hub_fails_before_anything_is_spent(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    check_push(config_for(tmp_path))
    with pytest.raises(UsageError, match="--push_to_hub: cannot make our/student: "):
        check_push(config_for(tmp_path, push_to_hub=True, hub_model_id="our/student"))
