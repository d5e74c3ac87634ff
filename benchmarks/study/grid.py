"""What a study consists of: cells, each one student trained once, and which of them come next."""

import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from liftplace.common.errors import UsageError

LABELS = ("teacher", "student", "initialisation", "method", "variant")
RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1)
SEARCH_SEED = 1000  # never one of those that are reported
LONG = 2000  # steps of a run that is worth checkpoints
Settings = Mapping[str, Any]


@dataclass(frozen=True)
class Cell:
    """One student, trained once.

    Attributes:
        study: its name.
        phase: "search", whose scores only choose a learning rate, or "confirm".
        labels: by the names in `LABELS`.
        settings: of `liftplace distill`, where they differ from its defaults, and those of
            `liftplace prune` under "prune" for a student that is pruned from the teacher.
        stages: steps after which it is scored, ascending.
    """

    study: str
    phase: str
    labels: Mapping[str, str]
    settings: Settings
    stages: tuple[int, ...]
    corrected: bool = False  # whether corrected samples are scored too; no part of the hash

    @property
    def hash(self) -> str:
        """Of everything that decides the result but the code: a cell of two studies has one."""
        return digest({"settings": self.settings, "stages": self.stages, "scored": SCORED})

    @property
    def rate(self) -> float:
        return self.settings["learning_rate"]

    @property
    def seed(self) -> int:
        return self.settings["seed"]

    @property
    def sampling_steps(self) -> int:
        """Denoising steps of the samples that are scored: a setting where they are varied."""
        return self.settings.get("num_inference_steps", SCORED["num_inference_steps"])

    @property
    def keeps_checkpoints(self) -> bool:
        """Whether a run that was stopped goes on, where it is long or has a next stage."""
        return len(self.stages) > 1 or self.stages[0] >= LONG

    @property
    def batches(self) -> str:
        """Cells with the same see the same images, noise and teacher, and can train together."""
        names = "pretrained_teacher_name_or_path teacher_sha256 dataset_name train_data_dir"
        names = [*names.split(), "seed", "train_batch_size"]
        return digest([*(self.settings.get(name) for name in names), self.stages])


# Of every cell, so that scores of all studies compare, but for steps that a cell's settings name.
# Part of the hash.
SCORED = {
    "num_samples": 500,
    "num_inference_steps": 12,  # DDIM
    "samples_seed": 0,
    "feature_network": "lite0",
    "num_error_images": 64,
    "num_timesteps": 8,
    "errors_seed": 0,
}


# The paper's sampler, beside that one where the settings say "samplers": "both".
LEADING = {"num_inference_steps": 100}


@dataclass(frozen=True)
class Study:
    """A grid: every combination of its levels, each at its learning rates, each with all seeds.

    Attributes:
        question: that it answers.
        base: settings of every cell.
        teachers, students, initialisations, methods, variants: the levels, by label, each with the
            settings it adds to those before it; of a teacher the settings name its folder.
        rates: learning rates, of `RATES`.
        search: choose among the rates (and beyond them, where the best is the last) with a seed of
            its own, for each combination, and give the others only that one. False: all rates,
            all seeds.
        stages, corrected: as of a cell.
    """

    question: str
    base: Settings
    teachers: Mapping[str, Settings]
    students: Mapping[str, Settings]
    methods: Mapping[str, Settings]
    initialisations: Mapping[str, Settings] = field(default_factory=lambda: {"random": {}})
    variants: Mapping[str, Settings] = field(default_factory=lambda: {"": {}})
    rates: tuple[float, ...] = (1e-3, 3e-3, 1e-2)
    search: bool = True
    stages: tuple[int, ...] = (600,)
    corrected: bool = False

    def levels(self) -> tuple[Mapping[str, Settings], ...]:
        """In the order of `LABELS`."""
        return self.teachers, self.students, self.initialisations, self.methods, self.variants

    def combinations(self) -> Iterator[tuple[dict[str, str], dict[str, Any]]]:
        """Labels and settings of each."""
        for chosen in itertools.product(*(level.items() for level in self.levels())):
            settings = {**self.base}
            for _, added in chosen:
                settings |= added
            yield dict(zip(LABELS, (label for label, _ in chosen), strict=True)), settings

    def pending(
        self, name: str, known: Mapping[str, Mapping[str, str]], seeds: Sequence[int]
    ) -> list[Cell]:
        """The cells to train next: none when the study is done.

        Args:
            name: of the study.
            known: the last row of each of its cells so far, by hash; a cell without a row of its
                last stage is under way.
            seeds: that are reported.
        """
        done = {cell: row for cell, row in known.items() if int(row["step"]) == self.stages[-1]}
        wanted = []
        for labels, settings in self.combinations():
            rates = self.rates
            if self.search:
                cells = {
                    rate: self._cell(name, "search", labels, settings, rate, SEARCH_SEED)
                    for rate in RATES
                }
                distances = {rate: _distance(done.get(cells[rate].hash)) for rate in RATES}
                tried = rates_to_search(self.rates, distances)
                wanted += [cells[rate] for rate in tried]
                if any(distances[rate] is None for rate in tried):
                    continue
                rates = (min(tried, key=distances.get),)
            wanted += [
                self._cell(name, "confirm", labels, settings, rate, seed)
                for seed in seeds
                for rate in rates
            ]
        return list({cell.hash: cell for cell in wanted if cell.hash not in done}.values())

    def _cell(self, name, phase, labels, settings, rate: float, seed: int) -> Cell:
        settings = {**settings, "learning_rate": rate, "seed": seed}
        return Cell(name, phase, labels, settings, self.stages, self.corrected)

    def cell_of(self, row: Mapping[str, str]) -> Cell:
        """The cell that a row is of.

        Raises:
            UsageError: the study has no such cell now.
        """
        labels = {name: row[name] for name in LABELS}
        for found, settings in self.combinations():
            if found == labels:
                rate, seed = float(row["learning_rate"]), int(row["seed"])
                cell = self._cell(row["study"], row["phase"], labels, settings, rate, seed)
                if cell.hash == row["hash"]:
                    return cell
        raise UsageError(
            f"--cell {row['hash']}: the settings of the study {row['study']} have changed since "
            f"commit {row['commit']}: check that out"
        )


def rates_to_search(
    start: Sequence[float], distances: Mapping[float, float | None]
) -> tuple[float, ...]:
    """The learning rates to try: those of `start`, and the next one of `RATES` on the side where
    the best so far is the last.

    Args:
        start: neighbours in `RATES`, ascending.
        distances: by rate, lower is better; None where it was not tried.
    """
    first, last = RATES.index(start[0]), RATES.index(start[-1])
    while True:
        tried = RATES[first : last + 1]
        if any(distances[rate] is None for rate in tried):
            return tried
        best = RATES.index(min(tried, key=distances.get))
        if best == first > 0:
            first -= 1
        elif best == last < len(RATES) - 1:
            last += 1
        else:
            return tried


def _distance(row: Mapping[str, str] | None) -> float | None:
    """The row's Frechet distance; infinite where the student diverged."""
    if row is None:
        return None
    return float(row["fd"]) if row["status"] == "ok" else float("inf")


def digest(value) -> str:
    """Twelve hexadecimal digits that tell it from any other."""
    text = json.dumps(value, sort_keys=True, default=list)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
