"""The CUDA C++ kernels' part of `python -m benchmarks compile`.

Their loops depend on the data, so their issue cycles count every instruction once: code that a row
never takes is counted (other dtypes, ragged ends, buckets cut again), loops are not repeated. Rows
that several blocks share are left out, because loops over the row are most of their work.
"""

import re
import subprocess
import tempfile

from benchmarks import sass
from benchmarks.compile_only import MAX_SHARED
from benchmarks.compile_rows import Issue, Problem, Row
from liftplace.kernels.cuda import build
from liftplace.kernels.cuda.launch import place_launch


def compiler() -> str:
    """The name and version of nvcc; empty where there is none."""
    nvcc = build.find_nvcc()
    if nvcc is None:
        return ""
    text = subprocess.run([nvcc, "--version"], check=True, capture_output=True, text=True).stdout
    return f"nvcc {re.search(r'release ([0-9.]+)', text)[1]}"


def compile_arch(arch: int, problems: tuple[Problem, ...] = ()) -> tuple[list[Row], list[Issue]]:
    """Every kernel on `arch`, and what PLACE's forward issues for `problems`."""
    with tempfile.TemporaryDirectory() as folder:
        cubins = [cubin.read_bytes() for cubin in build.compile_cubins(arch, folder)[0]]
    named = {_short(kernel.name): kernel for cubin in cubins for kernel in sass.kernels(cubin)}
    where = f"sm_{arch}", compiler()
    rows = [
        Row(name, "", *where, kernel.registers, kernel.stack, None, kernel.instructions)
        for name, kernel in sorted(named.items())
    ]
    code = {_short(found.name): found for cubin in cubins for found in sass.listings(cubin)}
    issued = []
    for problem in problems:
        launch = place_launch(problem.rows, problem.n, problem.group_size, MAX_SHARED[arch])
        name = f"place_row_kernel<{launch.kind}>"
        if name in code:
            size = problem.rows, problem.n, problem.group_size
            warps = launch.threads // 32
            issued.append(Issue(*where, *size, name, launch.blocks, warps, code[name].once))
    return rows, issued


def _short(mangled: str) -> str:
    """place_row_kernel<8> of its mangled name."""
    name, items = re.search(r"\d+([a-z_]+_kernel)(?:ILi(\d+)E)?", mangled).groups()
    return f"{name}<{items}>" if items else name
