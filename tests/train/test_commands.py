import json
import re
import shutil
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import DDPMPipeline
from PIL import Image

from liftplace.common.errors import UsageError
from liftplace.models.loading import LoadedModel, load_model
from liftplace.models.saving import save_pipeline
from liftplace.train import DistillConfig, NoiseProcess, TrainConfig, distill, train
from liftplace.train.commands import _match, _vlb_loss, objective_of
from liftplace.train.run_folder import read_metrics
from tests.data.pictures import damage
from tests.families.tiny import tiny_model
from tests.train.tiny import assert_same_weights, config_for, process, tiny_unet


def train_config(folder, **changes) -> TrainConfig:
    standard = {
        "output_dir": str(folder),
        "dataset_name": "digits",
        "resolution": 8,
        "block_out_channels": (8, 8),
        "norm_num_groups": 4,
        "train_batch_size": 4,
        "max_train_steps": 2,
        "report_to": "none",
    }
    return TrainConfig(**standard | changes)


@pytest.mark.parametrize("prediction_type", ["v_prediction", "flow"])
def test_train_ends_in_a_pipeline(tmp_path, prediction_type):
    train(train_config(tmp_path / "run", prediction_type=prediction_type))
    pipeline = DDPMPipeline.from_pretrained(tmp_path / "run")
    assert pipeline.unet.config.sample_size == 8
    if prediction_type == "flow":
        assert type(pipeline.scheduler).__name__ == "FlowMatchEulerDiscreteScheduler"
    else:
        assert pipeline.scheduler.config.prediction_type == prediction_type
    images = pipeline(batch_size=2, num_inference_steps=2, output_type="np").images
    assert images.shape == (2, 8, 8, 1)


def test_train_takes_an_architecture(tmp_path, teacher_folder):
    train(train_config(tmp_path / "run", model_config_name_or_path=str(teacher_folder)))
    unet = DDPMPipeline.from_pretrained(tmp_path / "run").unet
    assert unet.config.block_out_channels == [8, 8]
    assert not torch.equal(unet.conv_in.weight, tiny_unet().conv_in.weight)


@pytest.mark.parametrize(
    ("class_name", "changes"),
    [
        ("UNet2DModel", {"num_class_embeds": 10, "in_channels": 1, "out_channels": 1}),
        ("DiTTransformer2DModel", {"in_channels": 1, "out_channels": 2, "num_layers": 1}),
    ],
)
def test_train_with_classes(tmp_path, class_name, changes):
    tiny_model(class_name, **changes).save_config(tmp_path / "architecture")
    architecture = str(tmp_path / "architecture" / "config.json")
    train(train_config(tmp_path / "run", model_config_name_or_path=architecture))
    loaded = load_model(tmp_path / "run")
    assert loaded.family.num_classes(loaded.model.config) == 10
    assert loaded.process().prediction_type == "epsilon"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"resolution": None}, "--resolution is missing"),
        ({"norm_num_groups": 3}, "UNet2DModel does not take this architecture: num_channels"),
    ],
)
def test_train_refuses(tmp_path, changes, message):
    with pytest.raises(UsageError, match=message):
        train(train_config(tmp_path / "run", **changes))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("loss", ["none", "mse", "lift", "place"])
def test_distill_ends_in_a_pipeline(tmp_path, teacher_folder, loss):
    config = config_for(
        tmp_path / "run",
        loss=loss,
        pretrained_teacher_name_or_path=str(teacher_folder),
        max_train_steps=2,
    )
    distill(config)
    unet = DDPMPipeline.from_pretrained(tmp_path / "run").unet
    assert unet.config.block_out_channels == [4, 4]
    # beside loss and task, with what the loss is the sum of
    names = {"none": 1, "mse": 3, "lift": 7, "place": 7}
    lines = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert [len(line) - 5 for line in lines] == [names[loss]] * 2


NARROW = "group norms, the last among them, have one channel a group"
FOUR = {"student_norm_num_groups": 4}
GIVEN = {"student": "given", "student_block_out_channels": None}


@pytest.mark.parametrize(
    ("prediction_type", "changes", "groups", "remedy"),
    [
        ("epsilon", {}, 2, None),
        ("epsilon", FOUR, 4, "leave --student_norm_num_groups out"),
        ("epsilon", FOUR | {"student_block_out_channels": (8, 4)}, 4, None),
        ("epsilon", GIVEN, 4, "make it anew with liftplace prune"),
        ("v_prediction", GIVEN, 4, None),
    ],
)
def test_a_last_norm_of_one_channel_a_group_is_warned_of(
    tmp_path, capsys, prediction_type, changes, groups, remedy
):
    process = NoiseProcess.new(prediction_type)
    save_pipeline(tiny_unet(), process, tmp_path / "teacher")
    save_pipeline(tiny_unet(block_out_channels=(4, 4)), process, tmp_path / "given")
    changes = {"pretrained_teacher_name_or_path": str(tmp_path / "teacher"), **changes}
    if "student" in changes:
        changes["student"] = str(tmp_path / "given")
    distill(config_for(tmp_path / "run", dry_run=True, **changes))
    printed = capsys.readouterr().out
    assert printed.count(NARROW) == (remedy is not None)
    assert remedy is None or remedy in printed
    assert re.search(rf"norm groups +4 -> {groups}, at least 2 -> \d channels a group\n", printed)


def test_a_warm_up_longer_than_the_run_is_warned_of(tmp_path, capsys, teacher_folder):
    changes = {"pretrained_teacher_name_or_path": str(teacher_folder), "lr_warmup_steps": 500}
    distill(config_for(tmp_path / "run", dry_run=True, max_train_steps=100, **changes))
    printed = capsys.readouterr().out
    assert "Warning: --lr_warmup_steps is 500 and --max_train_steps 100" in printed
    assert "learning rate" in printed and "0.01 is not reached" in printed


def test_a_dry_run_measures_the_time_of_a_step_and_writes_nothing(tmp_path, capsys, teacher_folder):
    config = config_for(tmp_path / "run", pretrained_teacher_name_or_path=str(teacher_folder))
    distill(replace(config, dry_run=True, validation_steps=1, report_to="tensorboard"))
    printed = capsys.readouterr().out
    assert re.search(r"time +about \d+ seconds, [\d.e-]+ s a step here\n", printed)
    assert re.search(r"learning rate +0.01 after 2 steps of warm-up, then cosine to 0\n", printed)
    assert not (tmp_path / "run").exists()


def test_student_folder_is_where_training_starts(tmp_path, teacher_folder):
    student = tiny_unet(seed=7, block_out_channels=(4, 4))
    save_pipeline(student, process(), tmp_path / "student")
    config = config_for(
        tmp_path / "run",
        pretrained_teacher_name_or_path=str(teacher_folder),
        student=str(tmp_path / "student"),
        student_block_out_channels=None,
        learning_rate=1e-30,
        max_train_steps=1,
    )
    distill(config)
    assert_same_weights(DDPMPipeline.from_pretrained(tmp_path / "run").unet, student)


def save_images(folder: Path) -> None:
    folder.mkdir()
    for number in range(4):
        Image.effect_noise((9, 12), 50).convert("RGB").save(folder / f"{number}.png")


def test_image_folder(tmp_path):
    save_images(tmp_path / "images")
    train(
        train_config(
            tmp_path / "run",
            dataset_name=None,
            train_data_dir=str(tmp_path / "images"),
            dataloader_num_workers=0,
            random_flip=True,
        )
    )
    assert DDPMPipeline.from_pretrained(tmp_path / "run").unet.config.in_channels == 3


def test_a_run_of_before_resize_mode_goes_on_as_it_began(tmp_path):
    save_images(tmp_path / "images")
    options = {
        "dataset_name": None,
        "train_data_dir": str(tmp_path / "images"),
        "logging_steps": 1,
        "checkpointing_steps": 1,
    }
    for name, mode in (("squash", "squash"), ("crop", None)):
        train(train_config(tmp_path / name, **options, resize_mode=mode))
    squash, crop = (read_metrics(tmp_path / name / "metrics.jsonl") for name in ("squash", "crop"))
    assert squash != crop
    shutil.rmtree(tmp_path / "squash" / "checkpoint-2")
    record = json.loads((tmp_path / "squash" / "run.json").read_text())
    assert record["settings"].pop("resize_mode") == "squash"  # false was squash
    (tmp_path / "squash" / "run.json").write_text(json.dumps(record))
    options["resume_from_checkpoint"] = "latest"
    with pytest.raises(UsageError, match="its resize_mode is squash, not crop"):
        train(train_config(tmp_path / "squash", **options, resize_mode="crop"))
    train(train_config(tmp_path / "squash", **options))
    assert read_metrics(tmp_path / "squash" / "metrics.jsonl") == squash


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_picture_ends_the_run_after_a_checkpoint(tmp_path, workers):
    save_images(tmp_path / "images")
    damage(tmp_path / "images" / "1.png")
    options = {
        "dataset_name": None,
        "train_data_dir": str(tmp_path / "images"),
        "train_batch_size": 1,
        "max_train_steps": 4,
        "logging_steps": 1,
        "dataloader_num_workers": workers,
    }
    with pytest.warns(UserWarning, match=r"1\.png: .*: the next image takes its place"):
        train(train_config(tmp_path / "skip", **options, on_bad_files="skip"))
    with pytest.raises(UsageError, match=r"1\.png: .*; stopped at step \d: .*checkpoint-\d saved"):
        train(train_config(tmp_path / "error", **options))
    (checkpoint,) = (tmp_path / "error").glob("checkpoint-*")
    options |= {"resume_from_checkpoint": "latest", "on_bad_files": "skip"}
    with warnings.catch_warnings():  # it may have been the last step
        warnings.simplefilter("ignore")
        train(train_config(tmp_path / "error", **options))
    metrics = [read_metrics(tmp_path / name / "metrics.jsonl") for name in ("skip", "error")]
    assert metrics[0] == metrics[1] and len(metrics[0]) == 4


def test_a_damaged_picture_is_skipped_among_the_real_ones_too(tmp_path):
    save_images(tmp_path / "images")
    for number in range(4, 9):
        shutil.copy(tmp_path / "images" / "0.png", tmp_path / "images" / f"{number}.png")
    damage(tmp_path / "images" / "1.png")
    with pytest.warns(UserWarning, match=r"1\.png: .*: the next image takes its place"):
        train(
            train_config(
                tmp_path / "run",
                dataset_name=None,
                train_data_dir=str(tmp_path / "images"),
                max_train_steps=1,
                train_batch_size=1,
                evaluation_steps=1,
                evaluation_metrics="kid",
                num_evaluation_samples=9,
                num_inference_steps=1,
                on_bad_files="skip",
            )
        )
    (line,) = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert any(name.startswith("evaluation/") for name in line)


def test_images_read_in_other_processes_are_the_same_images(tmp_path):
    save_images(tmp_path / "images")
    for workers in (0, 1):
        train(
            train_config(
                tmp_path / f"run-{workers}",
                dataset_name=None,
                logging_steps=1,
                train_data_dir=str(tmp_path / "images"),
                dataloader_num_workers=workers,
            )
        )
    one, other = (read_metrics(tmp_path / f"run-{n}" / "metrics.jsonl") for n in (0, 1))
    assert one == other


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"student_block_out_channels": (4,)}, "must be 2 numbers, one for each level"),
        ({"kd_min_timestep": 1000.0}, "kd_min_timestep is 1000, and .* has 1000 timesteps"),
        ({"resolution": 16}, "--resolution is 16, but .*teacher works at 8"),
    ],
)
def test_distill_refuses(tmp_path, teacher_folder, changes, message):
    config = config_for(
        tmp_path / "run", pretrained_teacher_name_or_path=str(teacher_folder), **changes
    )
    with pytest.raises(UsageError, match=message):
        distill(config)
    assert not (tmp_path / "run").exists()


def test_other_options_reach_the_objective():
    config = DistillConfig(loss="lift", scope="sample", weight=0.5, terms="fine", impl="torch")
    objective = objective_of(config, channels=3, height=32, width=32)
    assert (objective.loss, objective.scope, objective.weight) == ("lift", "sample", 0.5)
    assert (objective.terms, objective.impl) == ("fine", "torch")


def feature_run(folder, teacher_folder, **changes):
    config = config_for(
        folder,
        pretrained_teacher_name_or_path=str(teacher_folder),
        feature_weight=0.5,
        feature_weight_schedule="cosine",
        max_train_steps=4,
        checkpointing_steps=2,
        **changes,
    )
    distill(config)
    return DDPMPipeline.from_pretrained(folder).unet, read_metrics(folder / "metrics.jsonl")


def test_a_resumed_run_has_its_adapters_again(tmp_path, teacher_folder):
    student, metrics = feature_run(tmp_path / "whole", teacher_folder)
    assert all(line["feature"] > 0 for line in metrics)
    shutil.copytree(tmp_path / "whole", tmp_path / "resumed")
    shutil.rmtree(tmp_path / "resumed" / "checkpoint-4")
    resumed, lines = feature_run(
        tmp_path / "resumed", teacher_folder, resume_from_checkpoint="latest"
    )
    assert_same_weights(resumed, student)
    assert lines == metrics


def loaded(class_name, folder="no folder", **changes) -> LoadedModel:
    return LoadedModel(tiny_model(class_name, **changes), None, str(folder))


@pytest.mark.parametrize(
    ("class_name", "weight", "trains"),
    [
        ("DiTTransformer2DModel", None, True),
        ("DiTTransformer2DModel", 0.0, False),
        ("PixArtTransformer2DModel", None, False),
        ("PixArtTransformer2DModel", 0.5, True),
        ("SD3Transformer2DModel", 1.0, False),
    ],
)
def test_a_variance_is_trained_where_samplers_read_it(class_name, weight, trains):
    config = DistillConfig(variance_weight=weight)
    term = _vlb_loss(config, loaded(class_name), process())
    assert (term is not None) == trains


def test_layer_map_of_the_student_s_folder_names_the_pairs(tmp_path):
    teacher = loaded("DiTTransformer2DModel")
    blocks = list(teacher.family.blocks(teacher.model))
    layer_map = {blocks[0]: blocks[0], blocks[1]: blocks[2]}
    record = json.dumps({"layer_map": layer_map})
    (tmp_path / "liftplace_config.json").write_text(record, encoding="utf-8")
    student = loaded("DiTTransformer2DModel", tmp_path, num_layers=2)
    assert dict(_match(DistillConfig(), student, teacher).pairs) == layer_map
    by_position = DistillConfig(feature_layers=("by_position",))
    pairs = dict(_match(by_position, student, teacher).pairs)
    assert pairs == {blocks[0]: blocks[1], blocks[1]: blocks[3]}


def test_a_run_goes_on_with_the_teacher_that_it_began_with(tmp_path, teacher_folder, monkeypatch):
    """On the Hub a branch moves: here main, in the cache of what was fetched."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    repository = tmp_path / "hub" / "models--some--teacher"
    first, second = 40 * "a", 40 * "b"
    shutil.copytree(teacher_folder, repository / "snapshots" / first)
    save_pipeline(tiny_unet(seed=7), process(), repository / "snapshots" / second)
    main = repository / "refs" / "main"
    main.parent.mkdir()
    main.write_text(first)
    settings = {"pretrained_teacher_name_or_path": "some/teacher", "revision": "main"}
    settings["lr_scheduler"] = "constant"  # one of a shorter run ends elsewhere
    distill(config_for(tmp_path / "whole", **settings))
    distill(config_for(tmp_path / "run", max_train_steps=3, **settings))
    main.write_text(second)
    distill(config_for(tmp_path / "run", resume_from_checkpoint="latest", **settings))
    assert_same_weights(*(load_model(tmp_path / name).model for name in ("whole", "run")))
    for name in ("run.json", "liftplace_config.json"):
        assert json.loads((tmp_path / "run" / name).read_text())["teacher_commit"] == first
    card = (tmp_path / "run" / "README.md").read_text()
    assert "A student of `some/teacher`" in card and "base_model: some/teacher" in card
    with pytest.raises(UsageError, match="holds another run: its revision is main, not v2"):
        again = settings | {"revision": "v2"}
        distill(config_for(tmp_path / "run", resume_from_checkpoint="latest", **again))
