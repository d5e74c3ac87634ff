"""The files of a study."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.results import load, replace
from benchmarks.study.grid import LABELS, Cell

COLUMNS = (
    "date", "device", "torch", "commit", "study", "phase", "hash", *LABELS, "learning_rate",
    "seed", "step", "status", "fd", "fd_floor", "fd_teacher", "kid", "kid_floor", "kid_teacher",
    "pixel_error", "mean_error", "fd_leading", "fd_teacher_leading", "kid_leading",
    "kid_teacher_leading", "pixel_error_leading", "mean_error_leading", "fd_corrected_own",
    "fd_corrected_teacher", "task_error", "teacher_error", "spikes", "weight", "coarse_share",
    "fine_share", "parameters", "share", "macs", "settings",
)  # fmt: skip
TIMESTEP_COLUMNS = (
    "hash", "step", "timestep", "power", "total", "coarse", "fine", "slope", "intercept"
)  # fmt: skip


class StudyFiles:
    """The rows of one study: study_<name>_<device>.csv, ..._timesteps.csv, ..._samples/.

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
        self.samples_folder = folder / f"{stem}_samples"

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

    def picture(self, row: Mapping[str, Any]) -> Path:
        """Of the row's samples."""
        return self.samples_folder / f"{row['hash']}-{row['step']}.png"

    def teacher_picture(self, row: Mapping[str, Any]) -> Path:
        """Of its teacher's, from the same noise and in as many steps: one for all studies."""
        settings = json.loads(row["settings"])
        steps = settings.get("num_inference_steps")
        name = settings["teacher_sha256"] + (f"-in-{steps}" if steps else "")
        if settings.get("samplers") == "both":  # the second one is shown
            name += "-leading"
        return self.folder / f"study_teachers_{self.device}" / f"{name}.png"

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
        """Copy the other's rows and pictures of these cells, by hash; gives the hashes it has."""
        taken = {
            row["hash"]
            for row in other.rows()
            if row["hash"] in wanted and int(row["step"]) == wanted[row["hash"]].stages[-1]
        }
        if not taken:
            return taken
        rows = [row for row in other.rows() if row["hash"] in taken]
        self.add(
            [row | _own_columns(wanted[row["hash"]]) for row in rows],
            [row for row in load(other.timesteps_path) if row["hash"] in taken],
        )
        for row in rows:
            if (picture := other.picture(row)).exists():
                self.samples_folder.mkdir(parents=True, exist_ok=True)
                self.picture(row).write_bytes(picture.read_bytes())
        return taken


def _own_columns(cell: Cell) -> dict[str, str]:
    """What a row says of the study that it is in."""
    return {**cell.labels, "study": cell.study, "phase": cell.phase}
