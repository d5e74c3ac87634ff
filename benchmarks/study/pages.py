"""A page for each study, docs/results/study/<name>.md, and numbers of studies for other pages."""

from pathlib import Path

from benchmarks.markdown import number
from benchmarks.study import figures, reading
from benchmarks.study.reading import Results, Row
from benchmarks.study.studies import STUDIES
from benchmarks.study.tables import tables

FOLDER = Path("results") / "study"  # of the pages and their figures, below docs/


def pages(results: Path, docs: Path) -> dict[Path, str]:
    """The text of the page of every study that has rows."""
    written: dict[Path, str] = {}
    for study in reading.find(results):
        path = docs / FOLDER / f"{study.name}.md"
        if body := _body(study):
            written[path] = f"{written.get(path, _head(study.name))}\n{body}\n"
    return written


def _head(name: str) -> str:
    question = STUDIES[name].question if name in STUDIES else name
    findings = "[What the studies found](../../results.md); written by `python -m benchmarks plot`."
    return f"# {question}\n\n{findings}\n"


def _body(study: Results) -> str:
    """The command, the figures and the tables."""
    paragraphs = tables(study)
    if not paragraphs:
        return ""
    command = f"    python -m benchmarks study {study.name} --device {study.device}"
    drawn = [f"![{Path(name).stem.replace('_', ' ')}]({name})" for name in figures.pictures(study)]
    return "\n\n".join([command, paragraphs[0], *drawn, *paragraphs[1:]])


class Numbers:
    """What stands between `<!-- value CELL -->` or `<!-- ratio CELL / CELL -->` and
    `<!-- end -->`: a score from the rows, or a ratio paired by seed with its interval.

    A cell is STUDY COLUMN METHOD, and where these leave several settings, what tells them apart:
    `regime fd_leading LIFT+PLACE @ narrow norms`; labels of a row, "500 steps",
    "rate 0.01" or "seed 0".
    After the slash only what differs: `/ output KD`, `/ output KD @ wide norms`.

    Args:
        results: the folder of the rows; those of the CPU are read.
    """

    def __init__(self, results: Path) -> None:
        self.results = results
        self._rows: dict[str, dict[str, list[Row]]] = {}

    def value(self, text: str) -> str:
        """A score, or a ratio, without its interval."""
        return number(self._estimate(text).value)

    def ratio(self, text: str) -> str:
        """With its interval."""
        found = self._estimate(text)
        if found.low is None:
            return f"{number(found.value)} (one seed)"
        return f"{number(found.value)} ({number(found.low)} to {number(found.high)})"

    def _estimate(self, text: str):
        first, _, second = text.partition(" / ")
        name, key, cell = first.split(" ", 2)
        rows = self._cell(name, cell, text)
        if not second:
            return reading.estimate(rows, key)
        if "@" not in second and "@" in cell:
            second += " @" + cell.split("@", 1)[1]
        return reading.ratio_of(rows, self._cell(name, second, text), key)

    def _cell(self, study: str, cell: str, text: str) -> list[Row]:
        method, *conditions = (part.strip() for part in cell.split(" @ "))
        rows = [
            row
            for row in self._compared(study).get(method, [])
            if all(condition in [*_labels(row), f"seed {row['seed']}"] for condition in conditions)
        ]
        settings = {tuple(_labels(row)) for row in rows}
        if len(settings) != 1:
            has = f"{len(settings)} settings: {sorted(settings)}"
            raise ValueError(f"<!-- {text} -->: {cell!r} must name one setting, not {has}")
        return rows

    def _compared(self, name: str) -> dict[str, list[Row]]:
        if name not in self._rows:
            study = reading.load(self.results, name, "cpu")
            self._rows[name] = reading.lines(reading.compared(study.rows, study.axes))
        return self._rows[name]


def _labels(row: Row) -> list[str]:
    labels = [row[name] for name in ("teacher", "student", "initialisation")]
    return [*labels, f"{row['step']:,} steps", f"rate {row['learning_rate']:g}"]
