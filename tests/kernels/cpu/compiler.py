"""Builds the C++ sources of the project for a test."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[3] / "kernels" / "cpu"


def build(source: Path, out: Path, *flags: str) -> Path:
    """Compile `source`, which includes files of kernels/cpu by name; skip without a compiler."""
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        pytest.skip("there is no C++ compiler here")
    command = [compiler, "-std=c++17", "-Wall", "-Wextra", "-Werror", f"-I{SOURCE}", *flags]
    done = subprocess.run([*command, source, "-o", out], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return out
