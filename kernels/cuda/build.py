"""Builds the CUDA C++ kernels with nvcc: at first use, or ahead of time.

    python -m liftplace.kernels.cuda.build [--arch 80 90 100] [--out FOLDER]

The library is plain C to the outside: no torch headers, so one build serves every torch. At first
use it is built for the device's architecture and kept in TORCH_EXTENSIONS_DIR, or else in
~/.cache/liftplace, under a name that holds the sources' hash. Ahead of time it goes beside this
file; the hash is compiled in, and a library of other sources is passed over. Only the standard
library is imported here: setup.py runs this file by itself.
"""

import argparse
import ctypes
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
SOURCES = ("place.cu", "lift.cu", "combine.cu", "backward.cu")
HEADERS = ("common.cuh", "fit.cuh", "rank.cuh", "select.cuh", "../cpu/fit.h")
ARCHES = (80, 90, 100)
"""Compute capabilities of an ahead-of-time build; PTX of the last one serves what came later."""
MIN_ARCH = 80
_FLAGS = ("-std=c++17", "-O3", "--threads=0", "-Xptxas=-v", "-Xcompiler=-fPIC")
LIBRARY = "liftplace_cuda.so"


class BuildError(RuntimeError):
    """nvcc is missing, or refused: then the message ends with its last lines."""


@dataclass(frozen=True)
class Resources:
    """What a kernel takes, from ptxas; `spills`: bytes of registers stored to local memory."""

    arch: int
    kernel: str
    registers: int
    spills: int


@cache
def find_nvcc() -> str | None:
    """nvcc of CUDA_HOME or CUDA_PATH, of PATH, or of /usr/local/cuda; None if there is none."""
    for home in (os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH")):
        if home and (nvcc := Path(home, "bin", "nvcc")).is_file():
            return str(nvcc)
    return shutil.which("nvcc") or shutil.which("nvcc", path="/usr/local/cuda/bin")


def build(out: Path | str, arches: tuple[int, ...] = ARCHES) -> list[Resources]:
    """Compile the library to the file `out`, for each compute capability of `arches`.

    It is written beside `out` and then renamed, so that two processes may build at once.

    Returns:
        What every kernel takes on every architecture.

    Raises:
        BuildError: there is no nvcc, or it failed.
    """
    out = Path(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    targets = [f"-gencode=arch=compute_{arch},code=sm_{arch}" for arch in arches]
    targets.append(f"-gencode=arch=compute_{max(arches)},code=compute_{max(arches)}")
    with tempfile.TemporaryDirectory(dir=out.parent) as folder:
        library = Path(folder, out.name)
        define = f"-DLIFTPLACE_DIGEST={digest()}"
        log = _nvcc(["-shared", define, *targets, *map(str, _sources()), "-o", str(library)])
        os.replace(library, out)
    return _parse_resources(log)


def compile_cubins(arch: int, folder: Path | str) -> tuple[list[Path], list[Resources]]:
    """Machine code of every source for one architecture, in `folder`, and what kernels take."""
    cubins, resources = [], []
    for source in _sources():
        cubin = Path(folder, f"{source.stem}_sm_{arch}.cubin")
        target = f"-arch=sm_{arch}"
        log = _nvcc(["-cubin", target, str(source), "-o", str(cubin)])
        cubins.append(cubin)
        resources.extend(_parse_resources(log))
    return cubins, resources


def load(arch: int) -> ctypes.CDLL:
    """The library for a device of compute capability `arch`: prebuilt, cached, or built now.

    Raises:
        BuildError: it was not built yet, and the build failed.
    """
    return _load(FOLDER / LIBRARY if is_prebuilt() else _cached(arch), arch)


def unsupported_reason() -> str | None:
    """Why there is no library and none can be built, and what to do; None if one can be."""
    if is_prebuilt() or find_nvcc():
        return None
    advice = "install the CUDA toolkit or set CUDA_HOME"
    if (FOLDER / LIBRARY).is_file():
        return f"{FOLDER / LIBRARY} was built from other sources and there is no nvcc: {advice}"
    return f"the kernels are not built and there is no nvcc: {advice}"


@cache
def is_prebuilt() -> bool:
    """Whether an ahead-of-time build left a library of these sources beside this file."""
    library = FOLDER / LIBRARY
    return library.is_file() and _digest_in(library) == digest()


def _digest_in(library: Path) -> str | None:
    """What `build` compiled in; None in a library from before it did, or that does not load."""
    try:
        compiled_in = ctypes.CDLL(str(library)).liftplace_digest
    except (AttributeError, OSError):
        return None
    compiled_in.restype = ctypes.c_char_p
    return compiled_in().decode()


@cache
def _load(library: Path, arch: int) -> ctypes.CDLL:
    if not library.is_file():
        build(library, (arch,))
    return ctypes.CDLL(str(library))


def _cached(arch: int) -> Path:
    root = os.environ.get("TORCH_EXTENSIONS_DIR")
    root = Path(root, "liftplace") if root else Path.home() / ".cache" / "liftplace"
    return root / f"liftplace_cuda_sm_{arch}_{digest()}_{_compiler()}.so"


@cache
def digest() -> str:
    """Of the sources and the flags."""
    sha256 = hashlib.sha256(" ".join(_FLAGS).encode())
    for name in (*SOURCES, *HEADERS):
        sha256.update((FOLDER / name).read_bytes())
    return sha256.hexdigest()[:16]


def _compiler() -> str:
    """Of the compiler's path, links followed: /usr/local/cuda may point to another version."""
    return hashlib.sha256(os.path.realpath(find_nvcc() or "").encode()).hexdigest()[:8]


def _sources() -> list[Path]:
    return [FOLDER / name for name in SOURCES]


def _nvcc(arguments: list[str]) -> str:
    nvcc = find_nvcc()
    if nvcc is None:
        raise BuildError("nvcc was not found: install the CUDA toolkit or set CUDA_HOME")
    result = subprocess.run([nvcc, *_FLAGS, *arguments], capture_output=True, text=True)
    log = result.stdout + result.stderr
    if result.returncode != 0:
        last = "\n".join(log.strip().splitlines()[-8:])
        raise BuildError(f"{nvcc} failed with status {result.returncode}:\n{last}")
    return log


def _parse_resources(log: str) -> list[Resources]:
    pattern = r"function '(\w+)' for 'sm_(\d+)'.*?(\d+) bytes spill stores.*?Used (\d+) registers"
    kernels = re.findall(pattern, log, re.DOTALL)
    return [
        Resources(int(arch), _short(name), int(registers), int(spills))
        for name, arch, spills, registers in kernels
    ]


def _short(mangled: str) -> str:
    """place_row_kernel<8> of its mangled name."""
    name, items = re.search(r"\d+([a-z_]+_kernel)(?:ILi(\d+)E)?", mangled).groups()
    return f"{name}<{items}>" if items else name


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--arch", type=int, nargs="+", default=list(ARCHES), help="80 is sm_80")
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder of the library")
    options = parser.parse_args()
    library = options.out / LIBRARY
    for kernel in build(library, tuple(options.arch)):
        print(
            f"sm_{kernel.arch:<4} {kernel.kernel:22} {kernel.registers:3} registers "
            f"{kernel.spills:3} bytes spilled"
        )
    print(library)


if __name__ == "__main__":
    main()
