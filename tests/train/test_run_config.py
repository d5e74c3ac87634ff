import dataclasses

import pytest

from liftplace.common.errors import UsageError
from liftplace.common.settings import may_change_on_resume
from liftplace.train import DistillConfig, TrainConfig
from liftplace.train.run_config import RunConfig


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"max_train_steps": 0}, "max_train_steps must be at least 1, got 0"),
        ({"learning_rate": 0.0}, "learning_rate must be greater than 0, got 0.0"),
        ({"learning_rate": float("nan")}, "learning_rate must be greater than 0, got nan"),
        ({"adam_beta1": 1.5}, r"adam_beta1 must be in \[0, 1\], got 1.5"),
        ({"resolution": 0}, "resolution must be at least 1, got 0"),
        ({"gradient_share_steps": -1}, "gradient_share_steps must be at least 0, got -1"),
        ({"evaluation_metrics": "fd,clip"}, "evaluation_metrics must be of fd, kid, is"),
        ({"metric_for_best_model": "is"}, "one of --evaluation_metrics, fd, kid, got 'is'"),
        ({"metric_for_best_model": "fd"}, "metric_for_best_model fd needs --evaluation_steps"),
    ],
)
def test_a_value_out_of_range_is_named(wrong, message):
    with pytest.raises(UsageError, match=message):
        RunConfig(**wrong)


@pytest.mark.parametrize("given", ["fd,recall", "fd recall", ("fd", "recall"), ("fd,recall", "fd")])
def test_metrics_stand_with_commas_or_spaces(given):
    assert RunConfig(evaluation_metrics=given).evaluation_metrics == ("fd", "recall")


def test_precision_is_accelerates_unless_it_is_given(monkeypatch):
    monkeypatch.delenv("ACCELERATE_MIXED_PRECISION", raising=False)
    assert RunConfig().mixed_precision == "no"
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")  # as accelerate launch does
    assert RunConfig().mixed_precision == "bf16"
    assert RunConfig(mixed_precision="no").mixed_precision == "no"
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "fp8")
    with pytest.raises(UsageError, match="mixed_precision fp8, as accelerate has it"):
        RunConfig()


@pytest.mark.parametrize("config_class", [DistillConfig, TrainConfig])
def test_what_may_change_on_resume(config_class):
    assert may_change_on_resume(config_class) == {
        "checkpointing_steps",
        "checkpoints_total_limit",
        "compile",
        "cuda_graphs",
        "dataloader_num_workers",
        "dataset_on_device",
        "dry_run",
        "evaluation_metrics",
        "evaluation_steps",
        "feature_network",
        "feature_weights",
        "gradient_accumulation_steps",
        "gradient_checkpointing",
        "gradient_share_steps",
        "guidance_scale",
        "hub_model_id",
        "logging_dir",
        "logging_steps",
        "max_train_steps",
        "metric_for_best_model",
        "num_evaluation_samples",
        "num_inference_steps",
        "num_validation_images",
        "on_bad_files",
        "output_dir",
        "push_to_hub",
        "reference_dir",
        "report_to",
        "resume_from_checkpoint",
        "train_batch_size",
        "validation_prompts",
        "validation_steps",
    }


def test_config_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        RunConfig().seed = 1
