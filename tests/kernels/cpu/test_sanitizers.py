"""The op on drawn inputs under the address, undefined-behaviour and thread sanitizers."""

import subprocess
from pathlib import Path

import pytest

from .compiler import build

SANITIZERS = {
    "address,undefined": ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"],
    "thread": ["-fsanitize=thread"],
}


@pytest.mark.parametrize("sanitizer", SANITIZERS)
def test_fuzz(sanitizer, tmp_path):
    flags = ["-O1", "-g", "-fno-omit-frame-pointer", "-ffp-contract=off", "-pthread"]
    source = Path(__file__).parent / "fuzz.cpp"
    program = build(source, tmp_path / "fuzz", *flags, *SANITIZERS[sanitizer])
    for seed in ("1", "2"):
        done = subprocess.run([program, seed, "75"], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
