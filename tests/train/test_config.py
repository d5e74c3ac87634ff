from dataclasses import replace

import pytest

from liftplace.cli import _parse
from liftplace.common.errors import UsageError
from liftplace.train import DistillConfig, TrainConfig
from liftplace.train.commands import objective_of
from liftplace.train.config import preset_file, preset_files


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"weight": 2.0}, r"weight must be in \[0, 1\], got 2.0"),
        ({"group_size": 1}, "group_size must be at least 2, got 1"),
        ({"group_size": 4, "num_groups": 4}, "group_size or num_groups, not both"),
        ({"eps": 1e-7, "eps_of_sum": 1e-7}, "eps or eps_of_sum, not both"),
        ({"feature_weight": -1.0}, "feature_weight must be at least 0, got -1.0"),
        ({"feature_mask": 0.0}, "feature_mask must be greater than 0, got 0.0"),
        ({"kd_min_timestep": -1.0}, "kd_min_timestep must be at least 0, got -1.0"),
        ({"kd_weight_schedule": "step"}, "one of constant, linear, cosine, got 'step'"),
        ({"kd_space": "sample", "loss": "none"}, "kd_space sample weighs --loss, which is none"),
        ({"student_block_out_channels": (8, 0)}, "one positive number a level"),
    ],
)
def test_a_value_out_of_range_is_named(wrong, message):
    with pytest.raises(UsageError, match=message):
        DistillConfig(**wrong)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "--output_dir is missing"),
        ({"output_dir": "a"}, "--dataset_name NAME or --train_data_dir"),
        (
            {"output_dir": "a", "dataset_name": "digits", "train_data_dir": "b"},
            "--dataset_name NAME or --train_data_dir",
        ),
        ({"output_dir": "a", "dataset_name": "digits"}, "--pretrained_teacher_name_or_path is mis"),
    ],
)
def test_what_is_missing_is_named(given, message):
    with pytest.raises(UsageError, match=message):
        DistillConfig(**given).check_complete()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "no student"),
        ({"student": "s", "student_layers_per_block": 1}, "not both"),
        ({"student": "s", "student_norm_num_groups": 1}, "not both"),
    ],
)
def test_exactly_one_student(given, message):
    config = DistillConfig(
        output_dir="a", dataset_name="digits", pretrained_teacher_name_or_path="t", **given
    )
    with pytest.raises(UsageError, match=message):
        config.check_complete()


def test_what_is_given_wins_over_the_preset():
    config = DistillConfig.of_preset("dit", norm="l1")
    assert (config.norm, config.task_weight, config.learning_rate) == ("l1", 0.1, 2e-4)
    assert (DistillConfig().loss, DistillConfig().task_weight) == ("mse", 1.0)


NAMES = ["ddpm", "dit", "sd"]


def objective(name, **given):
    return objective_of(DistillConfig.of_preset(name, **given), channels=3, height=32, width=32)


def test_these_are_all():
    assert [file.stem for file in preset_files()] == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_each_says_what_it_stands_for(name):
    text = preset_file(name).read_text(encoding="utf-8")
    assert f"--preset {name}" in text and "Row" in text and "arXiv 2605.19729" in text


@pytest.mark.parametrize(
    ("name", "rates", "weight_decay", "batch"),
    [
        ("ddpm", ("constant", 2e-4, 0.0), 0.0, 96),
        ("sd", ("constant", 5e-5, 0.0), 1e-2, 256),
        ("dit", ("cosine", 2e-4, 1e-4), 0.0, 256),
    ],
)
def test_optimisers_of_the_papers(name, rates, weight_decay, batch):
    config = DistillConfig.of_preset(name)
    assert (config.lr_scheduler, config.learning_rate, config.lr_min) == rates
    assert config.lr_warmup_steps == 0
    assert (config.adam_beta1, config.adam_beta2) == (0.9, 0.999)
    assert config.adam_weight_decay == weight_decay
    assert config.max_grad_norm == 1.0
    assert config.train_batch_size * config.gradient_accumulation_steps == batch
    assert config.use_ema and config.ema_max_decay == 0.9999


@pytest.mark.parametrize("name", NAMES)
def test_presets_and_plain_commands_read_pictures_alike(name):
    config, plain = DistillConfig.of_preset(name), DistillConfig()
    assert (config.resize_mode, config.center_crop) == (plain.resize_mode, plain.center_crop)


def test_an_unknown_one_is_refused():
    with pytest.raises(UsageError, match="there is no --preset flow: choose from ddpm, dit, sd"):
        DistillConfig.of_preset("flow")


@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [
        ("ddpm", {}, ("sum", "l1", 1e-7, 1, 1, 1e-6)),
        ("sd", {}, ("mean", "l1", 1e-8 / 16, 1, 1, 1)),
        ("sd", {"group_size": 64}, ("mean", "l1", 1e-8 / 64, 1, 1, 1)),
        ("sd", {"group_size": None, "num_groups": 8}, ("mean", "l1", 1e-8 / 128, 1, 1, 1)),
        ("dit", {}, ("mean", "l2", 1e-4 / 16, 0.1, 0.9, 1e-2)),
        ("dit", {"loss": "lift"}, ("mean", "l2", 1e-4 / 1024, 0.1, 0.9, 1e-2)),
        (
            "dit",
            {"loss": "lift", "scope": "sample"},
            ("mean", "l2", 1e-4 / 3072, 0.1, 0.9, 1e-2),
        ),
        (
            "dit",
            {"norm": "l1", "eps": 0.5, "eps_of_sum": None, "task_weight": 0.0},
            ("mean", "l1", 0.5, 0, 0.9, 1e-2),
        ),
    ],
)
def test_objectives_of_the_authors(name, given, expected):
    made = objective(name, **given)
    names = ("reduction", "norm", "eps", "task_weight", "kd_weight", "feature_weight")
    assert [getattr(made, each) for each in names] == pytest.approx(list(expected))


def test_without_a_preset():
    made = objective_of(DistillConfig(), channels=3, height=32, width=32)
    assert (made.reduction, made.norm, made.eps) == ("mean", "l1", 1e-7)
    assert (made.task_weight, made.kd_weight, made.feature_weight) == (1, 1, 0)


def test_hidden_states_of_the_dit_preset():
    made = objective("dit")
    assert made.feature_mask == 2.0 and made.has("feature")
    weights = [made.weight_of("feature", progress) for progress in (0.0, 0.5, 1.0)]
    assert weights == pytest.approx([1e-2, 5e-3, 0.0])


def test_flags_win_over_the_file_and_the_file_over_the_preset(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("kd_weight: 0.5\nlearning_rate: 3e-4\n", encoding="utf-8")
    argv = ["--config", str(file), "--preset", "dit", "--learning_rate", "5e-4"]
    config = _parse(DistillConfig, "distill", argv)
    assert (config.learning_rate, config.kd_weight, config.task_weight) == (5e-4, 0.5, 0.1)
    assert config == replace(DistillConfig.of_preset("dit"), kd_weight=0.5, learning_rate=5e-4)


def test_a_run_from_scratch_has_no_presets():
    with pytest.raises(SystemExit):
        _parse(TrainConfig, "train", ["--preset", "dit"])


def test_pairs_of_blocks_are_a_flag():
    argv = ["--feature_layers", "down_blocks.0:down_blocks.1", "mid_block", "--feature_mask", "2"]
    config = _parse(DistillConfig, "distill", argv)
    assert config.feature_layers == ("down_blocks.0:down_blocks.1", "mid_block")
    assert config.feature_mask == 2.0
