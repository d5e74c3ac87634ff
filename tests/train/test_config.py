import dataclasses

import pytest

from liftplace.errors import UsageError
from liftplace.train import DistillConfig, TrainConfig
from liftplace.train.config import MAY_CHANGE_ON_RESUME


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"max_train_steps": 0}, "max_train_steps must be at least 1, got 0"),
        ({"learning_rate": 0.0}, "learning_rate must be greater than 0, got 0.0"),
        ({"learning_rate": float("nan")}, "learning_rate must be greater than 0, got nan"),
        ({"adam_beta1": 1.5}, r"adam_beta1 must be in \[0, 1\], got 1.5"),
        ({"resolution": 0}, "resolution must be at least 1, got 0"),
        ({"weight": 2.0}, r"weight must be in \[0, 1\], got 2.0"),
        ({"group_size": 1}, "group_size must be at least 2, got 1"),
        ({"group_size": 4, "num_groups": 4}, "group_size or num_groups, not both"),
        ({"eps": 1e-7, "eps_of_sum": 1e-7}, "eps or eps_of_sum, not both"),
        ({"feature_weight": -1.0}, "feature_weight must be at least 0, got -1.0"),
        ({"feature_mask": 0.0}, "feature_mask must be greater than 0, got 0.0"),
        ({"kd_weight_schedule": "step"}, "one of constant, linear, cosine, got 'step'"),
        ({"student_block_out_channels": (8, 0)}, "one positive number a level"),
        ({"gradient_share_steps": -1}, "gradient_share_steps must be at least 0, got -1"),
        ({"evaluation_metrics": "fd,clip"}, "evaluation_metrics must be of fd, kid, is"),
        ({"metric_for_best_model": "is"}, "one of --evaluation_metrics, fd, kid, got 'is'"),
        ({"metric_for_best_model": "fd"}, "metric_for_best_model fd needs --evaluation_steps"),
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


@pytest.mark.parametrize("given", ["fd,recall", "fd recall", ("fd", "recall"), ("fd,recall", "fd")])
def test_metrics_stand_with_commas_or_spaces(given):
    assert TrainConfig(evaluation_metrics=given).evaluation_metrics == ("fd", "recall")


def test_precision_is_accelerates_unless_it_is_given(monkeypatch):
    monkeypatch.delenv("ACCELERATE_MIXED_PRECISION", raising=False)
    assert TrainConfig().mixed_precision == "no"
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")  # as accelerate launch does
    assert TrainConfig().mixed_precision == "bf16"
    assert TrainConfig(mixed_precision="no").mixed_precision == "no"
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "fp8")
    with pytest.raises(UsageError, match="mixed_precision fp8, as accelerate has it"):
        TrainConfig()


def test_what_is_given_wins_over_the_preset():
    config = DistillConfig.of_preset("dit", norm="l1")
    assert (config.norm, config.task_weight, config.learning_rate) == ("l1", 0.1, 2e-4)
    assert DistillConfig().task_weight == 1.0


@pytest.mark.parametrize("config_class", [DistillConfig, TrainConfig])
def test_settings_that_may_change_exist(config_class):
    assert {field.name for field in dataclasses.fields(config_class)} >= MAY_CHANGE_ON_RESUME


def test_config_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        TrainConfig().seed = 1
