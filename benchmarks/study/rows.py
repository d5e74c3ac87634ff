"""The files of a study."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.results import load, replace
from benchmarks.study import sheet
from benchmarks.study.grid import LABELS, Cell

TEXTS = ("date", "device", "torch", "commit", "study", "phase", "hash", *LABELS, "status")
COLUMNS = (
    *TEXTS[:-1],
    *"learning_rate seed step status fd fd_floor fd_teacher kid kid_floor kid_teacher".split(),
    *"pixel_error mean_error fd_leading fd_teacher_leading kid_leading".split(),
    *"kid_teacher_leading pixel_error_leading mean_error_leading fd_corrected_own".split(),
    *"fd_corrected_teacher task_error teacher_error spikes weight coarse_share".split(),
    *"fine_share parameters share macs settings".split(),
)
TIMESTEP_COLUMNS = tuple("hash step timestep power total coarse fine slope intercept".split())


class StudyFiles:
    """The rows of one study, study_<name>_<device>.csv, and beside it ..._timesteps.csv and
    ..._samples.png.

    Args:
        folder: of all results.
        study: its name.
        device: "cpu" or "cuda".
    """

    def __init__(self, folder: Path, study: str, device: str) -> None:
        stem = f"study_{study}_{device}"
        self.folder, self.device = folder, device
        self.rows_path = folder / f"{stem}.csv"
        self.timesteps_path = folder / f"{stem}_timesteps.csv"
        self.samples_path = folder / f"{stem}_samples.png"

    def rows(self) -> list[dict[str, str]]:
        return load(self.rows_path)

    def known(self) -> dict[str, dict[str, str]]:
        """The last row of each cell, by hash."""
        return {row["hash"]: row for row in self.rows()}

    def add(self, rows: Iterable[dict[str, Any]], timesteps: Iterable[dict[str, Any]]) -> None:
        """Rows of cells that the files do not hold; each file is written whole or not at all."""
        # Timesteps first: a cell is known by its row.
        for path, columns, fresh in (
            (self.timesteps_path, TIMESTEP_COLUMNS, timesteps),
            (self.rows_path, COLUMNS, rows),
        ):
            filled = [{name: row.get(name, "") for name in columns} for row in fresh]
            replace(path, columns, ("hash",), filled)

    def borrow(self, cells: Sequence[Cell]) -> list[Cell]:
        """Take over what other studies have found of these cells; gives the cells they have not."""
        wanted = {cell.hash: cell for cell in cells}
        for path in sorted(self.folder.glob(f"study_*_{self.device}.csv")):
            name = path.stem.removeprefix("study_").removesuffix(f"_{self.device}")
            if path != self.rows_path and wanted:
                taken = self._take(StudyFiles(self.folder, name, self.device), wanted)
                wanted = {hash_: cell for hash_, cell in wanted.items() if hash_ not in taken}
        return list(wanted.values())

    def _take(self, other: "StudyFiles", wanted: Mapping[str, Cell]) -> set[str]:
        """Copy the other's rows and samples of these cells, by hash; gives the hashes it has."""
        stored = other.rows()
        last = {hash_: cell.stages[-1] for hash_, cell in wanted.items()}
        taken = {row["hash"] for row in stored if last.get(row["hash"]) == int(row["step"])}
        if not taken:
            return taken
        rows = [row for row in stored if row["hash"] in taken]
        self.add(
            [row | own_columns(wanted[row["hash"]]) for row in rows],
            [row for row in load(other.timesteps_path) if row["hash"] in taken],
        )
        names = {name(row) for row in rows for name in (student_strip, teacher_strip)}
        strips = sheet.read(other.samples_path)
        sheet.add(self.samples_path, {name: strips[name] for name in names & strips.keys()})
        return taken


def own_columns(cell: Cell) -> dict[str, str]:
    """What a row says of the study that it is in."""
    return {**cell.labels, "study": cell.study, "phase": cell.phase}


def student_strip(row: Mapping[str, Any]) -> str:
    """The name of the row's samples in the study's sheet."""
    return f"{row['hash']}-{row['step']}"


def teacher_strip(row: Mapping[str, Any]) -> str:
    """The name of its teacher's, from the same noise and in as many steps."""
    settings = json.loads(row["settings"])
    steps = settings.get("num_inference_steps")
    name = settings["teacher_sha256"] + (f"-in-{steps}" if steps else "")
    # Of two samplers the second one is shown.
    return name + ("-leading" if settings.get("samplers") == "both" else "")
