"""From cells to rows: trains several students beside one teacher, and scores them."""

import json
import math
import os
from collections.abc import Sequence
from dataclasses import fields, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.study.evaluator import CellEvaluator, Scored
from benchmarks.study.grid import LONG, Cell, Settings
from benchmarks.study.studies import PLACES
from liftplace.common.errors import UsageError
from liftplace.data import load_dataset
from liftplace.data.encoder import Encoder
from liftplace.models.loading import LoadedModel, load_model
from liftplace.students.build import build_student
from liftplace.students.config import PruneConfig
from liftplace.train.commands import student_of, trainer_spec
from liftplace.train.config import DistillConfig
from liftplace.train.loop import fit
from liftplace.train.run_folder import METRICS, read_metrics
from liftplace.train.setup import new_trainers
from liftplace.train.trainer import TrainerSpec

ROOT = Path(__file__).parents[2]
SPIKE = 3.0  # times the running median
WINDOW = 51  # steps of that median


def _kept(folder: Path, stage: int) -> Path:
    return folder / f"scored-{stage}.json"


def _keep(scored: list[Scored], path: Path) -> None:
    """Write a stage's results, so that a run that was stopped does not score it again."""
    lists = [
        vars(each) | {"pictures": {name: made.tolist() for name, made in each.pictures.items()}}
        for each in scored
    ]
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(lists))
    os.replace(partial, path)


def train(cells: Sequence[Cell], folder: Path, device: str) -> list[Scored]:
    """Trains cells that share their batches, all at once.

    Args:
        cells: with one value of `Cell.batches`.
        folder: of the run; one that was interrupted goes on from its last checkpoint.
        device: "cpu" or "cuda".

    Returns:
        One for each cell and stage.
    """
    config = _config(cells[0], folder, device)
    teacher = _teacher(config.pretrained_teacher_name_or_path, device)
    dataset = _dataset(config)
    evaluator = _evaluator(config.pretrained_teacher_name_or_path, dataset, device)
    for stage in cells[0].stages:
        if (kept := _kept(folder, stage)).exists():
            continue
        specs = [_trainer_spec(cell, teacher, stage, device) for cell in cells]
        trainers = new_trainers(specs, config)
        failed = fit(
            trainers,
            dataset=load_dataset(dataset, resolution=evaluator.resolution, split="train"),
            encoder=Encoder(teacher),
            process=teacher.process(config),
            config=replace(config, max_train_steps=stage, **_checkpoints(cells[0], folder)),
            teacher=teacher.model,
            description=None,
            keep_going=True,
        )
        log = read_metrics(folder / METRICS)
        scored = []
        for cell, trainer in zip(cells, trainers, strict=True):
            training = of_training(log, trainer.name if len(cells) > 1 else None)
            failed_here = trainer.name in failed
            with trainer.final_weights() as model:
                scored.append(evaluator.score(cell, stage, model, failed_here, training))
        _keep(scored, kept)
    return scored_so_far(cells, folder)


def scored_so_far(cells: Sequence[Cell], folder: Path) -> list[Scored]:
    """One for each cell and each stage that `train` has finished in the folder."""
    kept = (_kept(folder, stage) for stage in cells[0].stages)
    texts = [path.read_text() for path in kept if path.exists()]
    return [Scored.of(each) for text in texts for each in json.loads(text)]


def _config(cell: Cell, folder: Path, device: str) -> DistillConfig:
    """Of the run, and of each of its trainers: either is recorded where there is a GPU."""
    known = {field.name for field in fields(DistillConfig)}
    settings = {name: value for name, value in cell.settings.items() if name in known}
    for name in ("pretrained_teacher_name_or_path", "train_data_dir"):
        if name in settings:
            settings[name] = str(ROOT / PLACES.get(settings[name], settings[name]))
    settings |= {"output_dir": str(folder), "cuda_graphs": device == "cuda"}
    return DistillConfig(**settings, logging_steps=1, report_to="none", mixed_precision="no")


def _checkpoints(cell: Cell, folder: Path) -> dict[str, Any]:
    """From which a run goes on that was stopped or has a next stage."""
    if not cell.keeps_checkpoints:
        return {"checkpointing_steps": 0}
    started = folder.is_dir() and any(folder.iterdir())
    return {
        "checkpointing_steps": min(cell.stages[0], LONG),
        "checkpoints_total_limit": 1,
        "resume_from_checkpoint": "latest" if started else None,
    }


def _trainer_spec(cell: Cell, teacher: LoadedModel, stage: int, device: str) -> TrainerSpec:
    config = replace(_config(cell, Path(cell.hash), device), max_train_steps=stage)
    groups = _norm_groups(cell.settings, teacher)
    if "prune" in cell.settings:
        options = {"norm_num_groups": groups, **cell.settings["prune"], "seed": cell.seed}
        prune = PruneConfig(**options, random_init=cell.settings["random_init"])
        model, _ = build_student(prune, teacher)
        student = LoadedModel(model, None, "the pruned student")
    else:
        student = student_of(replace(config, student_norm_num_groups=groups), teacher)
    encoder = Encoder(teacher)
    return trainer_spec(config, student, teacher, teacher.process(), encoder, name=cell.hash)


def _norm_groups(settings: Settings, teacher: LoadedModel) -> int:
    """Those of a student. Settings that name none mean as many of the teacher's as divide its
    channels, down to one channel a group: what `liftplace` gave when those rows were made."""
    named = settings.get("student_norm_num_groups")
    if named is not None:
        return named
    config = teacher.model.config
    most = config["norm_num_groups"]
    if "prune" not in settings:
        return math.gcd(most, *settings["student_block_out_channels"])
    width = settings["prune"]["width"]
    for groups in (n for n in range(most, 0, -1) if most % n == 0):
        try:
            teacher.family.narrow_config(config, width, groups)
        except UsageError:
            continue
        return groups
    raise UsageError(f"no student of width {width}")


def _dataset(config: DistillConfig) -> str:
    """Name or folder of the images."""
    folder = config.train_data_dir
    if folder is not None and not Path(folder).is_dir():
        raise UsageError(
            f"no pictures in {folder}: make them with python -m benchmarks emoji, as "
            "benchmarks/configs/emoji_teacher.yaml says"
        )
    return config.dataset_name or folder


def _teacher(folder: str, device: str) -> LoadedModel:
    if not Path(folder).is_dir():
        raise UsageError(
            f"no teacher in {folder}: train it there with liftplace train, as "
            "benchmarks/teachers/README.md says"
        )
    teacher = load_model(folder)
    # Channels last: the layout in which convolutions on a CPU are fastest.
    memory_format = torch.channels_last if device == "cpu" else torch.preserve_format
    return replace(teacher, model=teacher.model.to(device, memory_format=memory_format))


def of_training(log: list[dict[str, float]], name: str | None) -> dict[str, float]:
    """What the metrics tell of a run: spikes of its task loss, and means of its last tenth.

    Args:
        log: lines of metrics.jsonl, every step.
        name: of the trainer, where the run has several.
    """
    prefix = f"{name}/" if name else ""
    steps = [line for line in log if f"{prefix}task" in line]
    task = np.array([line[f"{prefix}task"] for line in steps])
    columns: dict[str, float] = {"spikes": spikes(task)}
    last = steps[-max(1, len(steps) // 10) :]
    metrics = {"coarse_share": "gradient_share/coarse", "fine_share": "gradient_share/fine"}
    for column, metric in {"weight": "weight", **metrics}.items():
        values = [line[prefix + metric] for line in last if prefix + metric in line]
        if values:
            columns[column] = float(np.mean(values))
    return columns


def spikes(losses: np.ndarray) -> int:
    """How many losses exceed `SPIKE` times the median of the `WINDOW` before them."""
    if len(losses) <= WINDOW:
        return 0
    before = np.lib.stride_tricks.sliding_window_view(losses, WINDOW)[:-1]
    return int((losses[WINDOW:] > SPIKE * np.median(before, axis=1)).sum())


@cache
def _evaluator(teacher: str, dataset: str, device: str) -> CellEvaluator:
    return CellEvaluator(_teacher(teacher, device), dataset, device)
