"""Where and on what a run took place: the columns that every row carries."""

import importlib.metadata
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import torch

from liftplace.common.errors import UsageError

_ROOT = Path(__file__).parents[1]
# What a run itself writes does not make the code it measures another.
_RESULTS = (":!benchmarks/results", ":!docs")


def check_device(device: str) -> None:
    """Raises UsageError where "cuda" is asked for and not there."""
    if device == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda: torch finds no CUDA device here; use --device cpu")


def environment(device: str, named: str | None = None) -> dict[str, str]:
    """named: the commit, where Git cannot tell it."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": torch.cuda.get_device_name() if device == "cuda" else cpu_name(),
        "driver": _driver() if device == "cuda" else "",
        "torch": torch.__version__,
        "triton": _version("triton"),
        "commit": named or commit(),
    }


def commit() -> str:
    """The commit checked out, "+dirty" where files differ from it."""
    head = _run("git", "rev-parse", "--short=12", "HEAD")
    if not head:
        return "uncommitted"
    dirty = _run("git", "status", "--porcelain", "--", ".", *_RESULTS)
    return head + ("+dirty" if dirty else "")


def cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    names = []
    if info.exists():
        lines = info.read_text().splitlines()
        names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _driver() -> str:
    lines = _run("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader").splitlines()
    return lines[0] if lines else ""


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _run(*command: str) -> str:
    """What the command prints; nothing where it is missing or fails."""
    try:
        done = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=True)
    except (FileNotFoundError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()
