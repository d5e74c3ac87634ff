"""The CUDA kernels' rows: named, counted, and launched as the op launches them."""

import pytest

pytest.importorskip("triton")

from benchmarks import compile_cuda
from benchmarks.compile_rows import Problem

pytestmark = pytest.mark.skipif(not compile_cuda.compiler(), reason="needs nvcc")


def test_every_kernel_has_a_row_and_short_rows_have_issue_cycles():
    problems = (Problem(256, 1024, 16), Problem(48, 65_536, 16))
    rows, issued = compile_cuda.compile_arch(90, problems)
    named = {row.kernel: row for row in rows}
    assert {"place_row_kernel<4>", "place_row_kernel<16>", "combine_kernel"} <= set(named)
    assert all(row.registers > 0 and row.instructions > 50 for row in rows)
    (short,) = issued  # rows that several blocks share are left out
    assert (short.n, short.kernel, short.programs) == (1024, "place_row_kernel<4>", 256)
    assert short.warps == 8 and short.executed < named[short.kernel].instructions
