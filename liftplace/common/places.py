"""Settings that name a model, a dataset or a file, looked at before the imports that take seconds.

Only what cannot be found anywhere is refused here; what may be a name on the Hugging Face Hub is
left to whatever loads it.
"""

import re
from pathlib import Path

from liftplace.common.errors import UsageError

MODEL_OF_HUB = r"[\w-][\w.-]*/[\w.-]+"
DATASET_OF_HUB = r"[\w-][\w.-]*(/[\w-][\w.-]*)?"
MODELS = ("pretrained_teacher_name_or_path", "student", "model", "teacher")
DATASETS = ("train_data_dir", "reference_dir", "data")
FILES = ("student_config", "class_map", "feature_weights", "reference_stats")


def check_places(config) -> None:
    """Raises UsageError if a model, a dataset or a file of these settings is nowhere."""
    for names, check in ((MODELS, check_model), (DATASETS, _check_dataset)):
        for name in names:
            for value in _each(getattr(config, name, None)):
                check(value)
    for name in FILES:
        value = getattr(config, name, None)
        if value is not None and not Path(value).is_file():
            raise UsageError(f"--{name} {value}: there is no such file")


def check_model(name: str | Path) -> None:
    """Raises UsageError for what is neither a folder nor a name as models on the Hub have it."""
    if not Path(name).is_dir() and not re.fullmatch(MODEL_OF_HUB, str(name)):
        raise UsageError(f"no folder {name}: give the folder of a diffusers model")


def _check_dataset(name: str) -> None:
    if not Path(name).exists() and not re.fullmatch(DATASET_OF_HUB, name):
        raise UsageError(
            f'no folder {name}: give a folder of images, or "digits" for the packaged digits'
        )


def _each(value: str | tuple[str, ...] | None) -> tuple[str, ...]:
    return value if isinstance(value, tuple) else (value,) if value else ()
