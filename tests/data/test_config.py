import subprocess
import sys

import pytest

from liftplace.analyze.config import AnalyzeConfig
from liftplace.common.errors import UsageError
from liftplace.common.settings import read_yaml
from liftplace.data.config import EncodeConfig
from liftplace.evaluate.config import EvaluateConfig

COMPLETE = {
    "pretrained_teacher_name_or_path": "teacher",
    "output_dir": "cache",
    "train_data_dir": "images",
}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"shard_size": 0}, "shard_size must be at least 1, got 0"),
        ({"dataloader_num_workers": -1}, "dataloader_num_workers must be at least 0, got -1"),
        ({"resolution": 0}, "resolution must be at least 1, got 0"),
        ({"mixed_precision": "fp8"}, "mixed_precision must be one of no, fp16, bf16, got 'fp8'"),
    ],
)
def test_bad_settings_are_named(changes, message):
    with pytest.raises(UsageError, match=message):
        EncodeConfig(**COMPLETE | changes)


@pytest.mark.parametrize("name", COMPLETE)
def test_missing_settings_are_named(name):
    EncodeConfig(**COMPLETE).check_complete()
    with pytest.raises(UsageError, match=f"--{name}"):
        EncodeConfig(**{key: v for key, v in COMPLETE.items() if key != name}).check_complete()


def test_two_datasets():
    with pytest.raises(UsageError, match="give either --dataset_name NAME or --train_data_dir"):
        EncodeConfig(**COMPLETE, dataset_name="pictures").check_complete()


def test_flags_wait_for_no_model_library():
    code = (
        "import sys, liftplace.data.config; "
        "print([m for m in ('diffusers', 'transformers', 'datasets') if m in sys.modules])"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("lines", "mode"),
    [
        ("center_crop: false", "squash"),
        ("center_crop: true", "crop"),
        ("center_crop: false\nresize_mode: null", None),  # as this version writes it
    ],
)
def test_a_file_of_before_resize_mode_means_what_it_meant(tmp_path, lines, mode):
    (tmp_path / "old.yaml").write_text(lines)
    for config_class in (EncodeConfig, EvaluateConfig, AnalyzeConfig):
        config = config_class(**read_yaml(tmp_path / "old.yaml", config_class))
        assert config.resize_mode == mode
