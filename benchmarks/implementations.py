"""What is timed side by side: ours, the authors' style, the compiler, and two yardsticks."""

import importlib.util
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

import liftplace
from benchmarks import naive
from benchmarks.cases import Case
from liftplace import _dispatch, reference

BASELINE = "naive"
YARDSTICKS = ("mse", "mse-compile", "copy")  # compute something else: no gate
ON_REQUEST = ("compile-max-autotune",)  # compiles for minutes


@dataclass(frozen=True)
class Implementation:
    """forward(student, teacher) -> loss, whose gradient autograd takes where there is one."""

    name: str
    forward: Callable[[Tensor, Tensor], Tensor]
    differentiable: bool = True
    ties_by_index: bool = True
    no_graph: str = ""  # why it cannot be captured in a CUDA graph
    own_graph: bool = False  # replays graphs of its own, whose memory no allocator call shows

    def gradient(self, loss: Tensor, student: Tensor) -> Tensor | None:
        return torch.autograd.grad(loss, student)[0] if self.differentiable else None


def implementations(
    case: Case, student: Tensor, teacher: Tensor, wanted: list[str] | None = None
) -> tuple[list[Implementation], dict[str, str]]:
    """Those that can run this case, the baseline first; and the reason for each that cannot."""
    found, skipped = [_naive(case)], {}
    for name in _dispatch.IMPLEMENTATIONS:
        if name in ("auto", "reference") or _not_wanted(name, wanted):
            continue
        reason = _why_not(name, case, student, teacher)
        if reason:
            skipped[name] = reason
        else:
            found.append(Implementation(name, partial(_op(liftplace, case), impl=name)))
    for name, make in _others(case).items():
        if _not_wanted(name, wanted):
            continue
        reason = _why_no_compiler(case) if "compile" in name else ""
        if reason:
            skipped[name] = reason
        else:
            found.append(make())
    return found, skipped


def _not_wanted(name: str, wanted: list[str] | None) -> bool:
    return name in ON_REQUEST if wanted is None else name not in wanted


def _op(module, case: Case) -> Callable[..., Tensor]:
    if case.op == "lift":
        return module.lift_loss
    return partial(module.place_loss, group_size=case.group_size)


def _naive(case: Case) -> Implementation:
    # 16-bit inputs tie so often that only a rule for ties makes the result comparable. A sort on
    # CUDA keeps to it anyway; in float32 on a CPU the rule costs time, so there it is left out.
    stable = case.dtype != torch.float32
    forward = _op(naive, case) if case.op == "lift" else partial(_op(naive, case), stable=stable)
    return Implementation(
        BASELINE, forward, ties_by_index=stable, no_graph="reads the weight on the host"
    )


def _why_not(name: str, case: Case, student: Tensor, teacher: Tensor) -> str:
    if name == "triton" and case.device == "cpu":
        return "Triton's interpreter on a CPU tells nothing about time"
    try:
        _dispatch.choose(name, student, teacher, case.row_length)
    except RuntimeError as error:
        return str(error)
    return ""


def _others(case: Case) -> dict[str, Callable[[], Implementation]]:
    """Everything that is not ours, by name. Nothing is compiled before it first runs."""
    compiled = partial(torch.compile, _op(reference, case), fullgraph=True, dynamic=False)
    others = {
        "compile": lambda: Implementation("compile", compiled()),
        "mse": lambda: Implementation("mse", F.mse_loss),
        "copy": lambda: _copy(case),
    }
    if case.device == "cuda":
        reason = "already replays CUDA graphs of its own"
        tuned = partial(Implementation, "compile-max-autotune", no_graph=reason, own_graph=True)
        others["compile-max-autotune"] = lambda: tuned(compiled(mode="max-autotune"))
        others["mse-compile"] = lambda: Implementation(
            "mse-compile", torch.compile(F.mse_loss, fullgraph=True, dynamic=False)
        )
    return others


def _copy(case: Case) -> Implementation:
    """Reads and writes its `floor_bytes` together; zeros may copy faster."""
    generator = torch.Generator(case.device).manual_seed(0)
    source = torch.empty(case.floor_bytes("copy") // 2, dtype=torch.uint8, device=case.device)
    source.random_(generator=generator)
    target = torch.empty_like(source)
    return Implementation("copy", lambda s, t: target.copy_(source), differentiable=False)


def _why_no_compiler(case: Case) -> str:
    if case.device == "cuda":
        found = importlib.util.find_spec("triton") is not None
        return "" if found else "torch.compile needs Triton, which is not installed"
    command = os.environ.get("CXX", "g++")
    found = shutil.which(command) or shutil.which("clang++")
    return "" if found else f"torch.compile needs a C++ compiler, and there is no {command} here"
