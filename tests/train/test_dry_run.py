import shutil
from dataclasses import replace

import pytest
import torch

from liftplace.families import family_of_model
from liftplace.models.loading import LoadedModel, load_model
from liftplace.train.dry_run import describe_learning_rate, estimate_resources
from tests.families.pipelines import tiny_pipeline
from tests.families.tiny import TINY, tiny_model
from tests.train.tiny import config_for

DIT = "DiTTransformer2DModel"


@pytest.fixture
def pair(tmp_path):
    teacher = load_model(tiny_pipeline(DIT, tmp_path / "teacher"))
    return teacher, LoadedModel(tiny_model(DIT, num_layers=2), None, "student")


def count(model) -> int:
    return sum(weight.numel() for weight in model.parameters())


def plan_of(tmp_path, pair, **changes):
    config = replace(config_for(tmp_path / "run" / "of" / "mine"), **changes)
    return estimate_resources(config, *pair, images=100, size=8)


def test_sizes(tmp_path, pair):
    planned = plan_of(tmp_path, pair)  # batches of 4 x 2, 6 steps, a checkpoint every 3, EMA
    weights = 4 * count(pair[1].model)
    assert planned.teacher_parameters == count(pair[0].model)
    assert planned.student_parameters == count(pair[1].model)
    assert planned.effective_batch == 8
    assert planned.memory["student, gradient, optimiser"] == 4 * weights
    assert planned.memory["average"] == weights
    assert planned.memory["teacher"] == 4 * count(pair[0].model)
    assert (planned.checkpoint, planned.checkpoints) == (4 * weights, 2)
    vae = sum(path.stat().st_size for path in (tmp_path / "teacher" / "vae").iterdir())
    assert vae < planned.result - weights < vae + 10_000  # scheduler and index are small
    assert planned.disk == 2 * planned.checkpoint + planned.result
    assert planned.free_disk <= shutil.disk_usage(tmp_path).total


def test_settings_count(tmp_path, pair):
    whole = plan_of(tmp_path, pair)
    half = plan_of(tmp_path, pair, mixed_precision="bf16", use_8bit_adam=True, use_ema=False)
    assert 2 * half.memory["teacher"] == whole.memory["teacher"]
    assert half.memory["activations"] == whole.memory["activations"] // 2
    assert "average" not in half.memory
    assert half.checkpoint < whole.checkpoint
    spared = plan_of(tmp_path, pair, gradient_checkpointing=True)
    assert spared.memory["activations"] < whole.memory["activations"]
    assert "teacher" not in plan_of(tmp_path, pair, loss="none").memory
    assert plan_of(tmp_path, pair, checkpoints_total_limit=1).checkpoints == 1
    assert plan_of(tmp_path, pair, checkpointing_steps=0).checkpoints == 0


def test_without_a_teacher(tmp_path, pair):
    with_one, alone = plan_of(tmp_path, pair), plan_of(tmp_path, (None, pair[1]))
    assert alone.memory.pop("model, gradient, optimiser") == 16 * count(pair[1].model)
    assert alone.memory.items() < with_one.memory.items() and "teacher" not in alone.memory
    assert alone.result == 4 * count(pair[1].model)
    first = alone.table().splitlines()[0].split()
    assert first == ["model", f"{count(pair[1].model):,}", "parameters"]


@pytest.mark.parametrize("class_name", TINY)
def test_activations_are_what_the_backward_keeps(tmp_path, class_name):
    model = tiny_model(class_name).train()
    family = family_of_model(model)
    family.prepare_training(model)
    ours = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    kept = {}

    def note(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in ours:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        output = family.predict(model, *family.example(model.config, batch=4, size=8))
        measured = sum(kept.values())
    loaded = LoadedModel(model, None, "student")
    estimate = plan_of(tmp_path, (loaded, loaded)).memory["activations"]  # of a batch of 4
    assert output.requires_grad
    assert estimate == pytest.approx(measured, rel=0.2)


def test_table_says_it_all(tmp_path, pair):
    table = plan_of(tmp_path, pair).table()
    for text in (
        "teacher",
        "8 images",
        "6 (0.48 epochs of 100 images)",
        "2 checkpoints of",
        "free",
    ):
        assert text in table


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"lr_warmup_steps": None, "max_train_steps": 1000},
            "0.01 after 100 steps of warm-up, then",
        ),
        (
            {"lr_warmup_steps": None, "max_train_steps": 9000},
            "0.01 after 500 steps of warm-up, then",
        ),
        ({"lr_warmup_steps": 0, "lr_min": 1e-5}, "0.01, then cosine to 1e-05"),
        ({"lr_scheduler": "constant", "lr_warmup_steps": 900}, "0.01, constant"),
        ({"lr_scheduler": "cosine_with_restarts"}, "then cosine with restarts to 0"),
        ({"lr_warmup_steps": 6}, "0.01 is not reached"),
    ],
)
def test_learning_rate_in_words(tmp_path, changes, words):
    assert words in describe_learning_rate(replace(config_for(tmp_path), **changes))


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.25, "about 2 seconds, 0.25 s"), (1200.0, "about 2.0 hours")]
)
def test_time_of_the_run(tmp_path, pair, seconds, words):
    assert words in replace(plan_of(tmp_path, pair), seconds_a_step=seconds).table()
    assert "does not fit" in plan_of(tmp_path, pair).table()
