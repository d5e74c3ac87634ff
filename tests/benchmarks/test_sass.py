"""Machine code is read right: a kernel assembled here, with a loop whose trips are known."""

import subprocess

import pytest

from benchmarks import sass

triton = pytest.importorskip("triton")

PTX = """
.version 8.0
.target sm_80
.address_size 64
.visible .entry {name}(.param .u64 data)
{{
    .reg .u64 %p;
    .reg .u32 %i;
    .reg .f32 %x, %y;
    .reg .pred %again;
    ld.param.u64 %p, [data];
    mov.u32 %i, 0;
    mov.f32 %x, 0f00000000;
{loop}
    st.global.f32 [%p], %x;
    ret;
}}
"""
LOOP = """
again:
    .pragma "nounroll";
    ld.volatile.global.f32 %y, [%p];
    add.f32 %x, %x, %y;
    add.u32 %i, %i, 1;
    setp.lt.u32 %again, %i, 10;
    @%again bra again;
"""


def assemble(tmp_path, name, loop) -> tuple[sass.Kernel, sass.Listing]:
    (tmp_path / "kernel.ptx").write_text(PTX.format(name=name, loop=loop))
    command = [triton.knobs.nvidia.ptxas.path, "-arch=sm_80", "kernel.ptx", "-o", "kernel.cubin"]
    subprocess.run(command, cwd=tmp_path, check=True)
    cubin = (tmp_path / "kernel.cubin").read_bytes()
    (kernel,), (listing,) = sass.kernels(cubin), sass.listings(cubin)
    assert kernel.name == listing.name == name
    return kernel, listing


def test_straight_line_code_is_executed_once(tmp_path):
    kernel, listing = assemble(tmp_path, "straight", "")
    assert kernel.stack == 0 and 0 < kernel.registers < 32
    assert listing.loops() == []
    # All but the branch to itself that follows EXIT.
    assert listing.executed() == listing.once == kernel.instructions - 1


def test_a_loop_counts_once_a_trip(tmp_path):
    _, listing = assemble(tmp_path, "looping", LOOP)
    (body,) = listing.loops()
    inside = sum(not line.startswith(".L_") for line in body)
    assert sum("LDG" in line for line in body) == 1 and inside >= 4
    assert listing.executed(10) == listing.once + 9 * inside
    assert listing.executed(10, loads=1) == listing.executed(10)


def test_two_loops_are_refused(tmp_path):
    second = LOOP.replace("again:", "more:").replace("bra again", "bra more")
    _, listing = assemble(tmp_path, "twice", LOOP + second)
    with pytest.raises(ValueError, match="twice has 2 loops, whose trips are not known"):
        listing.executed()
