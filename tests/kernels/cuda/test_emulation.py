"""The emulation: it refuses what CUDA forbids, and its sanitizers see what a kernel does wrong."""

import ctypes
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from .harness import EMULATION, compile_emulation

WRONG = """
#include <cuda_runtime.h>
extern __shared__ uint4 shared_memory[];
__global__ void wrong(int kind) {
  if (kind == 0 && threadIdx.x < 3) __syncthreads();
  if (kind == 1 && threadIdx.x > 3) __shfl_sync(0xffffffffu, 1, 0);
  if (kind == 2) __syncthreads();
}
extern "C" int run(int kind, int threads, int shared) {
  cudaLaunchConfig_t config;
  config.blockDim = dim3(threads);
  config.dynamicSmemBytes = shared;
  return cudaLaunchKernelEx(&config, wrong, kind);
}
"""
LAUNCH_FAILURE, INVALID_VALUE, INVALID_CONFIGURATION = 719, 1, 9


@pytest.fixture(scope="module")
def wrong(tmp_path_factory):
    if shutil.which("g++") is None:
        pytest.skip("there is no g++ here")
    folder = tmp_path_factory.mktemp("wrong")
    (folder / "wrong.cpp").write_text(WRONG)
    command = ["g++", "-std=c++17", "-shared", "-fPIC", f"-I{EMULATION}"]
    sources = [folder / "wrong.cpp", EMULATION / "emulation.cpp"]
    subprocess.run([*command, *sources, "-o", folder / "wrong.so"], check=True)
    return ctypes.CDLL(str(folder / "wrong.so"))


def test_barriers_that_not_all_threads_reach(wrong, capfd):
    assert wrong.run(0, 64, 0) == LAUNCH_FAILURE
    assert wrong.run(1, 64, 0) == LAUNCH_FAILURE
    assert "wait at different places" in capfd.readouterr().err
    assert wrong.run(2, 64, 0) == 0


def test_launches_that_no_gpu_takes(wrong):
    assert wrong.run(2, 1056, 0) == INVALID_CONFIGURATION
    assert wrong.run(2, 64, 48 * 1024) == 0
    assert wrong.run(2, 64, 48 * 1024 + 4) == INVALID_VALUE  # more was not asked for


PROGRAM = """
import ctypes, sys
import pytest, torch
from tests.kernels.harness import pair
from tests.kernels.cuda.harness import assert_agrees, emulated
from tests.kernels.cuda.test_rank import errors
library = ctypes.CDLL(sys.argv[1])
torch.manual_seed(0)
patch = pytest.MonkeyPatch()
with emulated(patch, library):
    for n, size in ((5, 2), (97, 16), (1024, 16), (2051, 100)):
        assert_agrees(*pair(2, n, "cpu"), size)
        assert_agrees(*pair(2, n, "cpu", torch.bfloat16, torch.float16), size)
        assert_agrees(*pair(2, n, "cpu"))
    assert_agrees(*pair(1, 8300, "cpu"))
    assert_agrees(*errors("half tied", 1, 3001, "cpu"), 16)
with emulated(patch, library, row_threads=32, part_threads=32):
    assert_agrees(*errors("integers", 1, 1501, "cpu"), 16)
    assert_agrees(*pair(1, 1501, "cpu"), 600)
print("all agree")
"""


def test_under_the_address_and_undefined_behaviour_sanitizers(tmp_path):
    """Shared memory ends where the launch said, tensors where torch allocated them."""
    flags = ("-O0", "-g1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
    library = compile_emulation(tmp_path / "kernels.so", *flags)
    runtimes = [
        subprocess.check_output(["g++", f"-print-file-name={name}"], text=True)
        for name in ("libasan.so", "libubsan.so")
    ]
    environment = os.environ | {
        "LD_PRELOAD": ":".join(name.strip() for name in runtimes),
        "ASAN_OPTIONS": "detect_leaks=0",
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[3]), *sys.path]),
    }
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM, library], env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr[-4000:]
    assert "all agree" in result.stdout
