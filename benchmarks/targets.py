"""The project's targets, each beside what was measured; a miss is printed like a pass."""

from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.cases import Case
from benchmarks.implementations import BASELINE
from benchmarks.results import gb_per_s

BIG = 1 << 27  # elements: about 1 GB of inputs in float32
OURS_ON_CUDA = ("triton", "cuda")


@dataclass(frozen=True)
class Target:
    """`name` of ours, in `mode`, was `measured` where `bound` was asked for."""

    case: Case
    mode: str  # "eager" or "graph"
    name: str
    text: str
    measured: float
    bound: float
    at_least: bool

    @property
    def relation(self) -> str:
        return f"{'at least' if self.at_least else 'at most'} {self.bound:g}"

    @property
    def met(self) -> bool:
        return self.measured >= self.bound if self.at_least else self.measured <= self.bound

    def __str__(self) -> str:
        verdict = "pass" if self.met else "MISS"
        mode = "" if self.mode == "eager" else f" in a CUDA {self.mode}"
        return (
            f"{verdict}  {self.case}: {self.name}{mode}, {self.text}: {self.measured:.3g} "
            f"({self.relation})"
        )


def targets(case: Case, rows: list[dict]) -> list[Target]:
    """The targets that the rows of one case can answer, from `results.numbers`."""
    if case.device == "cpu":
        return list(_cpu(case, rows))
    return [target for mode in ("eager", "graph") for target in _cuda(case, rows, mode)]


def faster(row: dict, other: dict) -> float:
    """How many times as fast as `other`."""
    return other["ms_p50"] / row["ms_p50"]


def find(rows: list[dict], name: str, mode: str = "eager", l2: str = "") -> dict | None:
    """Forward and backward of `name`."""
    wanted = (name, mode, l2, "both")
    keys = ("implementation", "mode", "l2", "phase")
    return next((row for row in rows if tuple(row[key] for key in keys) == wanted), None)


def _cpu(case: Case, rows: list[dict]) -> Iterator[Target]:
    naive, torch, native = (find(rows, name) for name in (BASELINE, "torch", "native"))
    if case.op != "place" or case.group_size != 16 or case.dtype.itemsize != 4:
        return
    if native:
        here = (case, "eager", "native")
        yield Target(*here, "times as fast as naive", native["ratio_p50"], 10, True)
        yield _beside_gradient(case, native)
    if torch:
        here = (case, "eager", "torch")
        peak, kept = (torch[key] / naive[key] for key in ("bytes_peak", "bytes_kept"))
        yield Target(*here, "times as fast as naive", torch["ratio_p50"], 1.4, True)
        yield Target(*here, "peak memory / naive's", peak, 0.65, False)
        yield Target(*here, "kept memory / naive's", kept, 0.2, False)


def _cuda(case: Case, rows: list[dict], mode: str) -> Iterator[Target]:
    """Ours, the faster of the two, against the others in the same mode, from a warm L2.

    Eager and in a graph are different questions: launches by the host count in the first alone.
    The baseline and memory are eager's; the baseline cannot be captured.
    """
    ours = [row for name in OURS_ON_CUDA if (row := find(rows, name, mode, "warm"))]
    if not ours:
        return
    best = min(ours, key=lambda row: row["ms_p50"])
    here = (case, mode, best["implementation"])
    mse, compiled, copy = (find(rows, name, mode, "warm") for name in ("mse", "compile", "copy"))
    if case.op == "lift":
        if mse:
            yield Target(*here, "time / mse", faster(mse, best), 1, False)
        if copy and case.elements >= BIG:  # far more than an L2 holds
            share = gb_per_s(case, best) / gb_per_s(case, copy)
            yield Target(*here, "bandwidth / copy's", share, 0.8, True)
        return
    if case.row_length <= 1 << 14 and case.elements < BIG:
        if mode == "eager":
            yield Target(*here, "times as fast as naive", best["ratio_p50"], 30, True)
        if compiled:
            yield Target(*here, "times as fast as compile", faster(best, compiled), 10, True)
    if mse and (case.row_length <= 4096 or case.row_length == 65536):
        bound = 1.5 if case.row_length <= 4096 else 4
        yield Target(*here, "time / mse", faster(mse, best), bound, False)
    if case.dtype.itemsize == 4 and mode == "eager":
        yield _beside_gradient(case, best)


def _beside_gradient(case: Case, row: dict) -> Target:
    extra = row["bytes_peak"] / case.elements - case.dtype.itemsize
    text = "bytes an element beside the gradient"
    return Target(case, row["mode"], row["implementation"], text, extra, 6, False)
