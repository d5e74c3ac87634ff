"""What failed: an implementation that was wrong on a case, or that an error stopped.

It is left out and named, and the others go on. red_<device>.csv keeps it, so that a run that goes
on (`--resume`) does not try it again. An error that leaves the GPU unusable ends the process, with
exit code `LOST`: the next one leaves that implementation out of every case of the op.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks import results

COLUMNS = ("date", "device", "commit", "program", "case", "implementation", "lost", "why")
LOST = 75  # no exit code of Python or pytest
EVERYTHING = "all implementations"


class DeviceLostError(RuntimeError):
    """The GPU answers no more in this process."""


@dataclass(frozen=True)
class RedList:
    """The red cases of one program ("ops", "sweep") on one device at one commit."""

    path: Path
    program: str
    where: dict[str, str]

    def rows(self) -> list[dict[str, str]]:
        mine = {"program": self.program} | {key: self.where[key] for key in ("device", "commit")}
        return [row for row in results.load(self.path) if row.items() >= mine.items()]

    def names(self, case: object) -> set[str]:
        """The implementations to leave out of a case, whose text begins with its op."""
        op = str(case).split()[0]
        names = set()
        for row in self.rows():
            lost = row["lost"] and row["case"].split()[0] == op
            if row["case"] == str(case) or lost and row["implementation"] != EVERYTHING:
                names.add(row["implementation"])
        return names

    @contextmanager
    def guard(self, case: object, implementation: str = EVERYTHING) -> Iterator[None]:
        """Note an error inside and go on, unless it is a lack of memory.

        Raises:
            DeviceLostError: the GPU did not survive the error.
        """
        try:
            yield
        except (DeviceLostError, torch.OutOfMemoryError):  # too little memory is no fault
            raise
        except Exception as error:
            self._add(case, implementation, error)

    def _add(self, case: object, implementation: str, error: Exception) -> None:
        lost = not _device_lives()
        why = results.reason(error)
        row = self.where | {"program": self.program, "case": case, "why": why}
        row |= {"implementation": implementation, "lost": "yes" if lost else ""}
        key = ("device", "commit", "program", "case", "implementation")
        results.replace(self.path, COLUMNS, key, [row])
        print(f"red: {implementation} on {case}: {why}", flush=True)
        if lost:
            raise DeviceLostError(f"the GPU is lost after {implementation} on {case}")

    def forget(self) -> None:
        """For a run that starts anew."""
        if mine := self.rows():
            kept = [row for row in results.load(self.path) if row not in mine]
            results.write(self.path, COLUMNS, kept)

    def report(self) -> str:
        return "\n".join(map(line, self.rows()))


def line(row: dict[str, str]) -> str:
    return f"red: {row['implementation']} on {row['case']}: {row['why']}"


def _device_lives() -> bool:
    if torch.cuda.is_available():
        try:
            torch.cuda.synchronize()
        except RuntimeError:
            return False
    return True
