import pytest

from liftplace.common.errors import UsageError
from liftplace.train import DistillConfig


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
