"""nvcc compiles every kernel without a GPU; a build is found again, and a missing one explained."""

import ctypes
import subprocess
import sys

import pytest

from liftplace.kernels.cuda import build, op

needs_nvcc = pytest.mark.skipif(build.find_nvcc() is None, reason="there is no nvcc")

# Threads of the largest launch, by which 65,536 registers of a multiprocessor are shared.
KERNELS = {
    "place_row_kernel<4>": 512, "place_row_kernel<8>": 1024, "place_row_kernel<16>": 1024,
    "place_part_kernel<16>": 768, "place_wide_kernel": 512, "lift_row_kernel": 1024,
    "lift_chunk_kernel": 256, "lift_merge_kernel": 256, "combine_kernel": 1024,
    "backward_tile_kernel": 512, "backward_flat_kernel": 256,
}  # fmt: skip


@needs_nvcc
def test_every_kernel_compiles_without_spills(tmp_path):
    """By the command line and as setup.py does it: neither liftplace nor torch is imported."""
    code = (
        "import runpy, sys; sys.modules['torch'] = sys.modules['liftplace'] = None; "
        "runpy.run_path(sys.argv.pop(1), run_name='__main__')"
    )
    command = [sys.executable, "-c", code, build.__file__, "--arch", "80", "90", "--out", tmp_path]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    (library,) = tmp_path.iterdir()
    *lines, last = printed.splitlines()
    assert last == str(library)
    for name in op._SIGNATURES:
        assert getattr(ctypes.CDLL(str(library)), name)

    compiled = set()
    for line in lines:
        arch, kernel, registers, _, spilled, *_ = line.split()
        compiled.add((arch, kernel))
        assert int(spilled) == 0, line
        assert 0 < int(registers) * KERNELS[kernel] <= 65_536, line
        if kernel == "place_row_kernel<8>":
            assert int(registers) <= 64, "two blocks of 512 threads a multiprocessor"
    assert compiled == {(arch, kernel) for arch in ("sm_80", "sm_90") for kernel in KERNELS}


@needs_nvcc
def test_machine_code_for_the_compile_table(monkeypatch, tmp_path):
    monkeypatch.setattr(build, "SOURCES", ("combine.cu",))
    (cubin,), (kernel,) = build.compile_cubins(100, tmp_path)
    assert cubin.read_bytes()[:4] == b"\x7fELF"
    assert (kernel.arch, kernel.kernel, kernel.spills) == (100, "combine_kernel", 0)


def test_a_missing_compiler_is_said(monkeypatch, tmp_path):
    monkeypatch.setattr(build, "find_nvcc", lambda: None)
    with pytest.raises(build.BuildError, match="nvcc was not found: .*CUDA_HOME"):
        build.build(tmp_path / "library.so")
    assert list(tmp_path.iterdir()) == []


def test_a_failing_compiler_is_quoted(monkeypatch, tmp_path):
    nvcc = tmp_path / "nvcc"
    nvcc.write_text("#!/bin/sh\necho 'place.cu(1): error: no such luck' >&2\nexit 3\n")
    nvcc.chmod(0o755)
    monkeypatch.setattr(build, "find_nvcc", lambda: str(nvcc))
    with pytest.raises(build.BuildError, match=r"status 3:\n.*no such luck"):
        build.build(tmp_path / "out" / "library.so")
    assert list((tmp_path / "out").iterdir()) == []


def test_built_once_and_kept(monkeypatch, tmp_path):
    """A compiler that copies an existing library: the first load builds, the second does not."""
    log = tmp_path / "log"
    nvcc = tmp_path / "nvcc"
    nvcc.write_text(
        "#!/bin/sh\necho built >> " + str(log) + "\nwhile [ $# -gt 1 ]; do shift; done\n"
        "echo 'int one(void) { return 1; }' | cc -shared -x c - -o \"$1\"\n"
    )
    nvcc.chmod(0o755)
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(build, "find_nvcc", lambda: str(nvcc))
    monkeypatch.setattr(build, "prebuilt", lambda: None)
    for _ in range(2):
        build._load.cache_clear()  # as another process would
        assert build.load(90).one() == 1
    assert log.read_text().split() == ["built"]
    build._load.cache_clear()
    assert len(list((tmp_path / "cache" / "liftplace").iterdir())) == 1
