"""Rows as studies write them, made up: students whose FD follows a formula that a test knows."""

import hashlib
import math
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.study.rows import StudyFiles

TEACHER = 1_000_000
FD_TEACHER, FD_FLOOR = 74.0, 19.0


def row(
    study: str,
    method: str,
    *,
    seed: int = 0,
    fd: float = 500.0,
    rate: float = 3e-3,
    phase: str = "confirm",
    student: str = "2 %",
    step: int = 1000,
    **given,
) -> dict:
    """One row; what is given replaces what else would stand there."""
    share = float(student.split()[0]) / 100
    made = {
        "date": "d", "device": "a CPU", "torch": "2", "commit": "abc", "study": study,
        "phase": phase, "teacher": "1 M", "student": student, "initialisation": "random",
        "method": method, "variant": "", "learning_rate": rate, "seed": seed, "step": step,
        "status": "ok", "fd": fd, "fd_floor": FD_FLOOR, "fd_teacher": FD_TEACHER,
        "kid": fd / 100, "kid_floor": -0.017, "kid_teacher": 0.26, "pixel_error": 0.3,
        "task_error": 0.1, "teacher_error": 0.05, "spikes": 0, "weight": "", "coarse_share": "",
        "fine_share": "", "parameters": round(share * TEACHER), "share": share, "macs": 1_000_000,
        "settings": '{"teacher_sha256": "0123"}',
    } | given  # fmt: skip
    if made["status"] == "not finite":
        made |= {"fd": "", "kid": "", "pixel_error": ""}
    names = ("teacher", "student", "initialisation", "method", "variant", "learning_rate", "seed")
    return {"hash": cell_hash(*(made[name] for name in names))} | made


def cell_hash(*labels) -> str:
    return hashlib.sha256(repr(labels).encode()).hexdigest()[:12]


def save(folder: Path, rows: list[dict], timesteps: list[dict] = (), pictures: bool = False):
    """Writes them as a study on the CPU does, with pictures of every confirming row if asked."""
    files = StudyFiles(folder, rows[0]["study"], "cpu")
    files.add(rows, timesteps)
    for number, each in enumerate(rows if pictures else ()):
        if each["phase"] == "confirm":
            path = files.picture(each)
            path.parent.mkdir(exist_ok=True)
            pixels = np.full((16, 128), 30 * (number % 8), np.uint8)
            Image.fromarray(pixels).save(path)
    return files


def drifting(of: dict, slope: float) -> list[dict]:
    """Rows of the timesteps of a cell's row."""
    return [
        {"hash": of["hash"], "step": of["step"], "timestep": timestep, "power": 0.8,
         "total": 0.08 * math.exp(-timestep / 500), "coarse": 0.01, "fine": 0.05,
         "slope": slope - timestep / 10_000, "intercept": 0.02}
        for timestep in (100, 400, 900)
    ]  # fmt: skip
