"""The folder of a run: the record of what the run is, and metrics.jsonl.

metrics.jsonl has one JSON object a line, {"step": 10, "loss": 0.3, ...}.
"""

import json
from dataclasses import MISSING, asdict, fields, replace
from pathlib import Path

import yaml
from accelerate.tracking import GeneralTracker

from liftplace import __version__
from liftplace.common.errors import UsageError
from liftplace.common.files import write_text_whole
from liftplace.common.settings import may_change_on_resume, of_today
from liftplace.data.cache import is_cache
from liftplace.train.objective import Objective
from liftplace.train.run_config import RunConfig

RECORD = "run.json"
SETTINGS = "config.yaml"
METRICS = "metrics.jsonl"


def check_output_dir(config: RunConfig) -> None:
    """Make sure that the output folder holds nothing that the run would spoil. Writes nothing.

    Raises:
        UsageError: it holds another run, or anything else that is not the run to resume.
    """
    folder = Path(config.output_dir)
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--output_dir {folder} is a file: name a folder")
    if not folder.is_dir() or not any(folder.iterdir()):
        return
    if not (folder / RECORD).is_file():
        raise UsageError(f"--output_dir {folder} is not empty and holds no run: name a new folder")
    if config.resume_from_checkpoint is None:
        raise UsageError(
            f"--output_dir {folder} holds another run: name a new folder, or continue that run "
            "with --resume_from_checkpoint latest"
        )
    recorded = _defaults(type(config)) | of_today(_read(folder, "settings"))
    new = asdict(config)
    for each in (new, recorded):
        each["resize_mode"] = _resize_mode(each)
    _check_same(folder, new, recorded, may_change_on_resume(type(config)))


def as_begun(config: RunConfig) -> RunConfig:
    """The settings, with the resize mode and warm-up of the run to resume where they give none:
    older versions had other defaults.

    Raises:
        UsageError: the folder's record cannot be read.
    """
    folder = Path(config.output_dir)
    if not (folder / RECORD).is_file():
        return config
    recorded = of_today(_read(folder, "settings"))
    if config.resize_mode is None:
        config = replace(config, resize_mode=_resize_mode(recorded))
    if config.lr_warmup_steps is None:
        config = replace(config, lr_warmup_steps=recorded.get("lr_warmup_steps"))
    return config


def _resize_mode(settings: dict) -> str | None:
    """None for a cache, which has its own."""
    if settings["train_data_dir"] and is_cache(Path(settings["train_data_dir"])):
        return None
    return settings["resize_mode"] or "crop"


def check_same_run(config: RunConfig, objectives: dict[str, dict], effective_batch: int) -> None:
    """
    Raises:
        UsageError: the folder's run minimises something else, or in batches of another size.
    """
    folder = Path(config.output_dir)
    if not (folder / RECORD).is_file():
        return
    recorded = _read(folder, "objectives")
    _check_same(folder, *map(_with_defaults, (objectives, recorded)))
    recorded = _read(folder, "effective_batch")
    if recorded != effective_batch:
        raise UsageError(
            f"--output_dir {folder} holds another run: its steps see {recorded} images, not "
            f"{effective_batch}: keep train_batch_size * gradient_accumulation_steps * processes"
        )


def recorded_commit(config: RunConfig) -> str | None:
    """The commit on the Hub of the teacher of the run to resume, if it has one: a branch may have
    moved on since."""
    if not (Path(config.output_dir) / RECORD).is_file():
        return None
    return _read(Path(config.output_dir), "teacher_commit", None)


def claim_output_dir(
    config: RunConfig,
    objectives: dict[str, dict],
    effective_batch: int,
    teacher_commit: str | None = None,
) -> None:
    """Write the record of the run and config.yaml, which --config takes to do it again, into its
    folder, which is made if need be.

    Raises:
        UsageError: the folder cannot be written to.
    """
    folder = Path(config.output_dir)
    record = {
        "liftplace": __version__,
        "settings": asdict(config),
        "objectives": objectives,
        "effective_batch": effective_batch,
        **({} if teacher_commit is None else {"teacher_commit": teacher_commit}),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_text_whole(folder / SETTINGS, yaml.safe_dump(_plain(asdict(config)), sort_keys=False))
        write_text_whole(folder / RECORD, json.dumps(record, indent=2) + "\n")
    except OSError as error:
        raise UsageError(f"cannot write to --output_dir {folder}: {error.strerror}") from error


def _plain(settings: dict) -> dict:
    return json.loads(json.dumps(settings))  # tuples become lists


def _read(folder: Path, part: str, default=MISSING):
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        return record[part] if default is MISSING else record.get(part, default)
    except (OSError, ValueError, KeyError) as error:
        raise UsageError(f"cannot read {folder / RECORD}, the record of the run") from error


def _defaults(settings_class: type) -> dict:
    """What a record says that is older than some settings: they were not there to be changed."""
    every = fields(settings_class)
    return _plain({each.name: each.default for each in every if each.default is not MISSING})


def _with_defaults(objectives: dict[str, dict]) -> dict[str, dict]:
    return {name: _defaults(Objective) | each for name, each in objectives.items()}


def _check_same(
    folder: Path, new: dict, recorded: dict, may_change: frozenset[str] = frozenset()
) -> None:
    new = _plain(new)
    for name in sorted((new.keys() | recorded.keys()) - may_change):
        if new.get(name) != recorded.get(name):
            raise UsageError(
                f"--output_dir {folder} holds another run: its {name} is {recorded.get(name)}, not "
                f"{new.get(name)}"
            )


class JsonLinesTracker(GeneralTracker):
    """Appends to metrics.jsonl what `accelerator.log` is given."""

    name = "jsonl"
    requires_logging_directory = False
    main_process_only = True

    def __init__(self, path: str | Path) -> None:
        super().__init__()
        self.path = Path(path)

    @property
    def tracker(self) -> Path:
        return self.path

    def log(self, values: dict, step: int | None = None, **kwargs) -> None:
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")


def read_metrics(path: str | Path) -> list[dict]:
    """The lines of a metrics.jsonl; a last line that was cut off is left out."""
    lines = Path(path).read_text(encoding="utf-8").splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


def forget_after(path: str | Path, step: int) -> None:
    """Drops the lines after `step`, which the resumed run writes again."""
    path = Path(path)
    if not path.exists():
        return
    kept = [line for line in read_metrics(path) if line["step"] <= step]
    write_text_whole(path, "".join(json.dumps(line) + "\n" for line in kept))
