"""What the studies of the paper's regime show: every student under both samplers."""

from functools import partial

from benchmarks import report
from benchmarks.study import reading
from benchmarks.study.reading import Results, Row
from benchmarks.study.statistics import Estimate, geometric_mean, mean

LEADING = "100 leading steps, x0 not clipped"
TRAILING = "12 trailing steps, x0 clipped"
# By column: what it is called, its mean over seeds, and whether the table is open at first.
SCORES = {
    "fd_leading": (f"FD-Lite0, {LEADING}", geometric_mean, True),
    "fd": (f"FD-Lite0, {TRAILING}", geometric_mean, True),
    "mean_error_leading": (f"Error of the samples' means, {LEADING}", mean, True),
    "mean_error": (f"Error of the samples' means, {TRAILING}", mean, False),
    "pixel_error_leading": (f"Pixel error, {LEADING}", mean, False),
    "pixel_error": (f"Pixel error, {TRAILING}", mean, False),
    "kid_leading": (f"KID, {LEADING}", mean, False),
    "kid": (f"KID, {TRAILING}", mean, False),
    "noisy_coarse_error": ("Coarse error at the noisier half of the timesteps", mean, False),
    "noisy_fine_error": ("Fine error at the noisier half of the timesteps", mean, False),
    "noisy_coarse_of_error": ("Coarse share of the error there", mean, False),
    "fd_corrected_teacher": (
        f"FD-Lite0 corrected along the teacher's trajectory, {LEADING}", geometric_mean, False
    ),
    "fd_corrected_own": (
        f"FD-Lite0 corrected at the student's own samples, {LEADING}", geometric_mean, False
    ),
}  # fmt: skip
AGAINST = ("fd_leading", "fd", "mean_error_leading", "noisy_coarse_error", "noisy_fine_error")


def is_regime(study: Results) -> bool:
    return study.kind.startswith("regime")


def score_of(rows: list[Row], key: str) -> Estimate | None:
    """Of the seeds in which it was measured and that did not diverge."""
    return SCORES[key][1](reading.measured(rows, key).values())


def cell(rows: list[Row], key: str) -> str:
    found = score_of(rows, key)
    lost = reading.diverged(rows)
    text = told(found) if found else ""
    return text + (f", {lost} of {len(rows)} diverged" if lost else "")


def told(found: Estimate) -> str:
    """A mean and its interval, or that it is of one seed."""
    value = _number(found.value)
    if found.low is None:
        return f"{value} (one seed)"
    return f"{value} [{_number(found.low)}, {_number(found.high)}]"


def _number(value: float) -> str:
    return report.number(value) if abs(value) >= 0.01 or value == 0 else f"{value:.2g}"


def panels() -> list[tuple]:
    """What `figures.save_dots` draws side by side."""
    return [(key, partial(score_of, key=key), SCORES[key][0].replace(", ", ",\n", 1))
            for key in ("fd_leading", "fd")]  # fmt: skip


def label(row: Row) -> str:
    """Of a row in the figure."""
    return f"{row['student']}: {reading.name_of(row)}"
