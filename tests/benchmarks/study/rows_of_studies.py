"""Rows as studies write them, made up: students whose FD follows a formula that a test knows."""

import hashlib
import math
from pathlib import Path

import numpy as np

from benchmarks.study import sheet
from benchmarks.study.rows import StudyFiles, student_strip

TEACHER = 1_000_000
FD_TEACHER, FD_FLOOR = 74.0, 19.0
TEXTS = {"date": "d", "device": "a CPU", "torch": "2", "commit": "abc", "teacher": "1 M"}
TEXTS |= {"initialisation": "random", "variant": "", "status": "ok", "weight": ""}
TEXTS |= {"coarse_share": "", "fine_share": "", "settings": '{"teacher_sha256": "0123"}'}
SCORES = {"fd_floor": FD_FLOOR, "fd_teacher": FD_TEACHER, "kid_floor": -0.017, "kid_teacher": 0.26}
SCORES |= {"pixel_error": 0.3, "task_error": 0.1, "teacher_error": 0.05, "spikes": 0}


def row(study: str, method: str, *, rate: float = 3e-3, student: str = "2 %", **columns) -> dict:
    """One row; `columns` replace what else would stand there."""
    share = float(student.split()[0]) / 100
    size = {"parameters": round(share * TEACHER), "share": share, "macs": 1_000_000}
    labels = {"study": study, "method": method, "student": student, "learning_rate": rate}
    labels |= {"phase": "confirm", "seed": 0, "step": 1000}
    made = {"fd": 500.0, **TEXTS, **SCORES, **size, **labels, **columns}
    made = {"kid": made["fd"] / 100} | made
    if made["status"] == "not finite":
        made |= {"fd": "", "kid": "", "pixel_error": ""}
    names = ("teacher", "student", "initialisation", "method", "variant", "learning_rate", "seed")
    key = repr([made[name] for name in names])
    return {"hash": hashlib.sha256(key.encode()).hexdigest()[:12]} | made


def seeds(study: str, method: str, values=(400.0, 500.0, 470.0), **columns) -> list[dict]:
    """A row for each FD."""
    return [row(study, method, seed=seed, fd=fd, **columns) for seed, fd in enumerate(values)]


def save(folder: Path, rows: list[dict], timesteps: list[dict] = (), strips: bool = False):
    """Writes them as a study on the CPU does, with samples of every confirming row if asked."""
    files = StudyFiles(folder, rows[0]["study"], "cpu")
    files.add(rows, timesteps)
    if strips:
        confirmed = [student_strip(each) for each in rows if each["phase"] == "confirm"]
        shades = {name: 30 * (place % 8) for place, name in enumerate(confirmed)}
        grey = {name: np.full((16, 128), shade, np.uint8) for name, shade in shades.items()}
        sheet.add(files.samples_path, grey)
    return files


def by_timestep(of: dict, *lines: dict) -> list[dict]:
    """Rows of the timesteps of a cell's row."""
    blank = {"power": 1.0, "coarse": 0.01, "fine": 0.05, "slope": 1.0, "intercept": 0.02}
    return [{"hash": of["hash"], "step": of["step"]} | blank | line for line in lines]


def drifting(of: dict, slope: float) -> list[dict]:
    """Whose slope falls with the timestep."""
    lines = [
        {"timestep": t, "total": 0.08 * math.exp(-t / 500), "slope": slope - t / 10_000}
        for t in (100, 400, 900)
    ]
    return by_timestep(of, *({"power": 0.8} | line for line in lines))
