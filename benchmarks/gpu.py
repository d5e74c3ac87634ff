"""python -m benchmarks gpu --stage 1|2|3|4: what a GPU is asked, the most valuable first.

A step is a command in a process of its own: one that fails, hangs or loses the GPU costs its share
of the minutes and no more. What they print is in stage<N>.log. Rows that benchmarks/results has of
this commit are taken up, so a stage that is called again goes on. With --device cpu every stage is
rehearsed: the same commands on tiny inputs, and tests are collected instead of run.
"""

import argparse
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from benchmarks import flags, red, report, results
from benchmarks.environment import commit
from benchmarks.red import LOST
from liftplace.common.errors import UsageError
from liftplace.kernels.cuda.build import find_nvcc

ROOT = Path(__file__).parents[1]
KINDS = ("ops", "sweep", "step", "train", "red")  # of rows
GRACE = 8.0  # seconds at the end of a step for the command to write what it has
START = 8.0  # seconds until a command that is told its minutes begins to count them: imports


@dataclass(frozen=True)
class Step:
    """A command; {python}, {out}, {commit} and {minutes} are filled in."""

    name: str
    share: float  # of the time; what is left over goes to the steps after it
    command: tuple[str, ...]
    rehearsal: tuple[str, ...] | None  # what --device cpu adds: of two flags the later one counts
    needs: tuple[str, ...] = ()  # modules, programs, folders


@dataclass(frozen=True)
class Outcome:
    name: str
    state: str  # "ok", "skipped", "red" or "stopped"
    seconds: float
    printed: list[str]  # the last lines

    def __str__(self) -> str:
        shown = self.printed[-1:] if self.state in ("ok", "skipped") else self.printed
        head = f"{self.state:8} {self.seconds:4.0f} s  {self.name}: "
        return head + "\n    ".join(line[:200] for line in shown)


def _benchmark(program: str, *more: str) -> tuple[str, ...]:
    command = f"{{python}} -m benchmarks {program} --device cuda --out {{out}} --commit {{commit}}"
    return (*command.split(), *more)


def _ops(*more: str) -> tuple[str, ...]:
    return _benchmark("ops", "--resume", "--minutes", "{minutes}", *more)


def _tests(*arguments: str) -> tuple[str, ...]:
    """Several at a time where pytest-xdist is, because most of their time is Triton's compiler."""
    workers = min(8, (os.cpu_count() or 1) // 2)
    parallel = workers > 1 and importlib.util.find_spec("xdist")
    command = "{python} -m pytest -m gpu -rfE --tb=short -o timeout=120".split()
    return (*command, *(["-n", str(workers)] if parallel else []), *arguments)


def _profile(kernel: str, impl: str, side: int) -> Step:
    code = (
        "import torch; from liftplace import place_loss; "
        f"s, t = torch.randn(2, 64, 4, {side}, {side}, device='cuda'); "
        f"place_loss(s.requires_grad_(), t, impl='{impl}').backward()"
    )
    profiler = f"ncu --set full --kernel-name regex:{kernel} --launch-count 1".split()
    command = (*profiler, "{python}", "-c", code)
    return Step(f"profile of {kernel}", 2 / 3, command, None, ("ncu",))


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_OF_OPS = sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("tests/test_[dfp]*.py"))
_UNCOMPILED = _words("--implementations torch triton cuda mse copy")
_COMPILED = _words("--implementations triton cuda compile mse mse-compile copy")
_TUNED = _words("--ops place --dtypes float32 --implementations compile-max-autotune --shapes")
_TUNED += _words("64,4,32,32 96,3,64,64 64,4,64,64 16,16,128,128")
_UNTIL = ("--minutes", "{minutes}")
_TINY = _words("--device cpu --shapes 1,2,8,8 --threads 1 --repeats 1")
_TINY += _words("--implementations torch mse copy")
_TINY_STEP = _words("--device cpu --batch_size 1 --repeats 1 --models dit")
_TINY_RUN = ("--students", "2.9 %", *_words("--device cpu --train_batch_size 2 --steps 1"))
_STUDIES = _benchmark("study", *_words("fashion_capacity fashion_stability --jobs 4"), *_UNTIL)
_NO_STUDY = _words("--device cpu --jobs 1 --minutes 0")
_SWEEP = _benchmark("sweep", "--resume", *_UNTIL)
_SANITIZER = _tests("-k", "sanitizer", "tests/kernels/cuda")
_COLLECT = ("--collect-only",)
_COLLECT_GPU = (*_COLLECT, "--ignore=tests/gpu/test_training.py")
_KERNEL_TESTS = _tests("-k", "not sanitizer", "tests/kernels", "tests/benchmarks", *_OF_OPS)
_TRAINER = ("diffusers", "accelerate", "mlxtend")

STAGES = {
    1: (
        Step("headline rows", 4, _ops("--group_sizes", "16", *_UNCOMPILED), _TINY),
        Step("kernel tests", 2.5, _KERNEL_TESTS, (*_COLLECT, "--ignore=tests/benchmarks")),
        Step("graphs, synchronisation, determinism", 1.5, _tests("tests/gpu"), _COLLECT_GPU),
    ),
    2: (
        Step("all rows", 4, _ops(*_UNCOMPILED), _TINY),
        _profile("place_row_kernel", "cuda", 64),
        _profile("_place_fwd_kernel", "triton", 32),
        _profile("_backward_kernel", "triton", 64),
        Step("compute-sanitizer", 2, _SANITIZER, _COLLECT, ("compute-sanitizer",)),
    ),
    3: (Step("sweep", 1, _SWEEP, _words("--device cpu --repeats 1")),),
    4: (
        Step("torch.compile", 3, _ops("--group_sizes", "16", *_COMPILED), _TINY),
        Step("the compiler at its best", 1, _ops("--group_sizes", "16", *_TUNED), _TINY),
        Step("training step", 1.5, _benchmark("step"), _TINY_STEP, ("diffusers",)),
        Step("trainer", 1.5, _benchmark("train"), (*_TINY_RUN, "--repeats", "1"), _TRAINER),
        Step("studies", 1, _STUDIES, _NO_STUDY, (*_TRAINER, "benchmarks/teachers/fashion")),
    ),
}


def add_flags(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--stage", type=int, choices=STAGES, required=True)
    add("--minutes", type=float, default=8.0, help="it takes no longer")
    add("--device", choices=flags.DEVICES, default="cuda", help="cpu: rehearse")
    add("--out", type=Path, default=flags.RESULTS, help="folder of the rows and the logs")
    add("--commit", default=None, help=flags.COMMIT)


def main(options: argparse.Namespace) -> int:
    named = options.commit or commit()
    if named == "uncommitted":
        raise UsageError("--commit: Git names no commit here; pass the one that this tree is of")
    end = time.monotonic() + 60 * options.minutes - GRACE
    out = options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    restore(ROOT / "benchmarks" / "results", out, named, options.device)
    steps, outcomes = STAGES[options.stage], []
    with (out / f"stage{options.stage}.log").open("a+b") as log:
        for number, step in enumerate(steps):
            shares = sum(each.share for each in steps[number:])
            seconds = (end - time.monotonic()) * step.share / shares
            outcomes.append(run(step, seconds, log, out, named, options.device == "cpu"))
            print(outcomes[-1], flush=True)
    print(f"\ntargets\n{report.goals(out, options.device)}\n\nrows and logs: {out}")
    for row in results.load(out / f"red_{options.device}.csv"):
        if row["commit"] == named:
            print(red.line(row))
    return 1 if {outcome.state for outcome in outcomes} & {"red", "stopped"} else 0


def restore(source: Path, out: Path, named: str, device: str) -> None:
    """Rows of this commit that `source` has, where `out` has no file of that kind."""
    for name in (f"{kind}_{device}.csv" for kind in KINDS):
        rows = [row for row in results.load(source / name) if row["commit"] == named]
        if rows and not (out / name).exists():
            results.write(out / name, rows[0], rows)


def run(step: Step, seconds: float, log, out: Path, named: str, rehearsal: bool) -> Outcome:
    """Run the command for so long at most; after it lost the GPU, again in a new process."""
    if reason := _missing(step, rehearsal):
        return Outcome(step.name, "skipped", 0, [reason])
    start = time.monotonic()
    code, printed, left = None, ["there was no time left for it"], seconds
    while left > GRACE:
        place = log.seek(0, os.SEEK_END)
        minutes = f"{max(0.0, left - GRACE - START) / 60:.2f}"
        filled = {"python": sys.executable, "out": out, "commit": named, "minutes": minutes}
        command = [part.format(**filled) for part in step.command]
        code = _process([*command, *(step.rehearsal if rehearsal else ())], left, log)
        log.seek(place)
        printed = [line for line in log.read().decode(errors="replace").splitlines() if line][-20:]
        left = seconds - (time.monotonic() - start)
        if code != LOST:
            break
    state = "stopped" if code in (None, LOST) else "red" if code else "ok"
    return Outcome(step.name, state, time.monotonic() - start, printed)


def _missing(step: Step, rehearsal: bool) -> str:
    if rehearsal and step.rehearsal is None:
        return "it needs a GPU"
    for need in step.needs:
        if "/" in need:
            found = rehearsal or (ROOT / need).exists()
        else:
            found = shutil.which(need, path=_path()) or importlib.util.find_spec(need)
        if not found:
            return f"there is no {need} here"
    return ""


def _path() -> str:
    """PATH, and nvcc's folder, where ncu and compute-sanitizer are even if PATH does not say so."""
    nvcc = find_nvcc()
    folders = [os.environ.get("PATH", os.defpath), *([str(Path(nvcc).parent)] if nvcc else [])]
    return os.pathsep.join(folders)


def _process(command: list[str], seconds: float, log) -> int | None:
    """The exit code, or None where time ran out: first an interrupt, then an end for it and all its
    children."""
    environment = {**os.environ, "PATH": _path(), "PYTHONUNBUFFERED": "1"}
    output = {"stdout": log, "stderr": subprocess.STDOUT}
    process = subprocess.Popen(command, cwd=ROOT, env=environment, start_new_session=True, **output)
    try:
        return process.wait(seconds - GRACE)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(GRACE)
        return None
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
