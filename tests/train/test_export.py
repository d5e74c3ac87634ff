import json
import re
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard
from PIL import Image

from liftplace.common.errors import UsageError
from liftplace.models.loading import LoadedModel
from liftplace.models.saving import read_record, save_pipeline
from liftplace.train.export import check_push, describe
from liftplace.train.run_folder import JsonLinesTracker
from tests.families.tiny import tiny_model
from tests.train.tiny import config_for, process, tiny_unet


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
    save_pipeline(student.model, process(), config.output_dir)
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


def test_the_cards_snippet_runs_when_pasted(described, monkeypatch):
    snippet = re.search(r"```python\n(.*?)```", (described / "README.md").read_text(), re.DOTALL)[1]
    monkeypatch.chdir(described)
    exec(snippet.replace("50", "2"), names := {})
    assert Image.open("sample.png").size == names["image"].size == (8, 8)


def test_a_card_that_goes_to_the_hub_names_the_repository(described, tmp_path):
    model = LoadedModel(tiny_unet(), None, "one")
    config = config_for(described, push_to_hub=True, hub_model_id="our/student")
    describe(config, model, model)
    card = (described / "README.md").read_text()
    assert 'DDPMPipeline.from_pretrained("our/student")' in card and str(described) not in card


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


def test_push_without_the_hub_fails_before_anything_is_spent(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    check_push(config_for(tmp_path))
    with pytest.raises(UsageError, match="--push_to_hub: cannot make our/student: "):
        check_push(config_for(tmp_path, push_to_hub=True, hub_model_id="our/student"))
