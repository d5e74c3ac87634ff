"""The project's targets, each beside what was measured; a miss is printed like a pass."""

from collections.abc import Iterator
from typing import NamedTuple

from benchmarks.cases import Case
from benchmarks.implementations import BASELINE


class Target(NamedTuple):
    text: str
    measured: float
    bound: float
    at_least: bool

    @property
    def met(self) -> bool:
        return self.measured >= self.bound if self.at_least else self.measured <= self.bound

    def __str__(self) -> str:
        relation = "at least" if self.at_least else "at most"
        verdict = "pass" if self.met else "MISS"
        return f"{verdict}  {self.text}: {self.measured:.3g} ({relation} {self.bound:g})"


def targets(case: Case, rows: list[dict]) -> list[Target]:
    """The targets that the rows of one case can answer."""
    found = list(_cuda(case, rows) if case.device == "cuda" else _cpu(case, rows))
    return [target._replace(text=f"{case}: {target.text}") for target in found]


def _cpu(case: Case, rows: list[dict]) -> Iterator[Target]:
    naive, torch, native = (_row(rows, name) for name in (BASELINE, "torch", "native"))
    if case.op != "place" or case.group_size != 16:
        return
    if torch:
        peak, kept = (torch[key] / naive[key] for key in ("bytes_peak", "bytes_kept"))
        yield Target("torch, times as fast as naive", torch["ratio_p50"], 1.4, True)
        yield Target("torch, peak memory / naive's", peak, 0.65, False)
        yield Target("torch, kept memory / naive's", kept, 0.2, False)
    if native:
        yield Target("native, times as fast as naive", native["ratio_p50"], 10, True)
        yield _beside_gradient(case, native)


def _cuda(case: Case, rows: list[dict]) -> Iterator[Target]:
    """Eager against eager, from a warm L2; for ours the best of our GPU implementations."""
    ours = [row for row in (_row(rows, "triton", "warm"), _row(rows, "cuda", "warm")) if row]
    mse = _row(rows, "mse", "warm")
    if not ours:
        return
    best = min(ours, key=lambda row: row["ms_p50"])
    name = best["implementation"]
    if case.op == "lift":
        if mse:
            yield Target(f"{name}, time / mse", best["ms_p50"] / mse["ms_p50"], 1, False)
        copy = _row(rows, "copy", "cold")
        if copy and case.elements >= 1 << 27:
            bandwidth = _row(rows, name, "cold")["gb_per_s"] / copy["gb_per_s"]
            yield Target(f"{name}, bandwidth / copy's", bandwidth, 0.8, True)
        return
    if case.row_length <= 1 << 14 and case.elements < 1 << 27:
        yield Target(f"{name}, times as fast as naive", best["ratio_p50"], 30, True)
        compiled = _row(rows, "compile", "warm")
        if compiled:
            ratio = compiled["ms_p50"] / best["ms_p50"]
            yield Target(f"{name}, times as fast as compile", ratio, 10, True)
    if mse and (case.row_length <= 4096 or case.row_length == 65536):
        bound = 1.5 if case.row_length <= 4096 else 4
        yield Target(f"{name}, time / mse", best["ms_p50"] / mse["ms_p50"], bound, False)
    if case.dtype.itemsize == 4:
        yield _beside_gradient(case, best)


def _row(rows: list[dict], name: str, l2: str = "") -> dict | None:
    """Forward and backward of `name`, eager."""
    wanted = (name, "eager", l2, "both")
    keys = ("implementation", "mode", "l2", "phase")
    return next((row for row in rows if tuple(row[key] for key in keys) == wanted), None)


def _beside_gradient(case: Case, row: dict) -> Target:
    extra = row["bytes_peak"] / case.elements - case.dtype.itemsize
    return Target(f"{row['implementation']}, bytes an element beside the gradient", extra, 6, False)
