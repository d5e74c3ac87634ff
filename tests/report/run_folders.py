"""Folders of runs, written by the trainer's own writers."""

from dataclasses import asdict
from pathlib import Path

import torch

from liftplace.plots.images import save_grid
from liftplace.train.objective import Objective
from liftplace.train.run_folder import METRICS, JsonLinesTracker, claim_output_dir
from tests.train.tiny import config_for


def write_metrics(folder: Path, lines: list[dict]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    tracker = JsonLinesTracker(folder / METRICS)
    for line in lines:
        values = dict(line)
        tracker.log(values, step=values.pop("step"))


def falling(steps: int, every: int = 1, start: float = 1.0) -> list[dict]:
    """Metrics of a run by PLACE."""
    return [
        {
            "step": step,
            "loss": start / step,
            "task": 0.5 * start / step,
            "kd": 0.5 * start / step,
            "coarse": 0.3 / step,
            "fine": 0.2,
            "weight": 1 - 1 / step,
            "gradient_norm": 2.0,
            "learning_rate": 1e-3,
        }
        for step in range(every, steps + 1, every)
    ]


def write_run(folder: Path, lines: list[dict], samples_at=(), names=("student",), **changes) -> str:
    """A whole folder; changes to the settings."""
    config = config_for(folder, **changes)
    objectives = {name: asdict(Objective("place", group_size=4)) for name in names}
    claim_output_dir(config, objectives, 8)
    write_metrics(folder, lines)
    for step in samples_at:
        (folder / "samples").mkdir(exist_ok=True)
        for name in names:
            save_grid(torch.zeros(4, 1, 8, 8), folder / "samples" / f"{name}-{step:06d}.png")
    return str(folder)
