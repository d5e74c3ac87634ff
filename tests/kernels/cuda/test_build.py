"""nvcc compiles every kernel without a GPU; a build is used again, and a missing one explained."""

import ctypes
import shutil
import subprocess
import sys

import pytest

from liftplace.kernels.cuda import build, op

needs_nvcc = pytest.mark.skipif(build.find_nvcc() is None, reason="there is no nvcc")

# Threads of the largest launch, by which 65,536 registers of a multiprocessor are shared.
KERNELS = {
    "place_row_kernel<4>": 512,
    "place_row_kernel<8>": 1024,
    "place_row_kernel<16>": 1024,
    "place_part_kernel<16>": 768,
    "place_wide_kernel": 512,
    "lift_row_kernel": 1024,
    "lift_chunk_kernel": 256,
    "lift_merge_kernel": 256,
    "combine_kernel": 1024,
    "backward_tile_kernel": 512,
    "backward_flat_kernel": 256,
}


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
    assert build._digest_in(library) == build.digest()

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
    monkeypatch.setattr(build, "is_prebuilt", lambda: False)
    for _ in range(2):
        build._load.cache_clear()  # as another process would
        assert build.load(90).one() == 1
    assert log.read_text().split() == ["built"]
    build._load.cache_clear()
    assert len(list((tmp_path / "cache" / "liftplace").iterdir())) == 1


@pytest.fixture
def beside(monkeypatch, tmp_path):
    """The sources in a folder of their own, and compile(define): a library of them beside them."""
    folder = tmp_path / "cuda"
    for name in (*build.SOURCES, *build.HEADERS):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes((build.FOLDER / name).read_bytes())
    if shutil.which("cc") is None:
        pytest.skip("there is no C compiler here")
    monkeypatch.setattr(build, "FOLDER", folder)

    def compile(digest):
        code = f'const char* liftplace_digest(void) {{ return "{digest}"; }}' if digest else ""
        command = ["cc", "-shared", "-x", "c", "-", "-o", folder / build.LIBRARY]
        subprocess.run(command, input=code, text=True, check=True)

    _forget()
    yield compile
    _forget()


def _forget():
    """As another process would start."""
    for cached in (build.digest, build.is_prebuilt, build._load):
        cached.cache_clear()


def test_a_prebuilt_library_of_these_sources_is_used(beside, monkeypatch):
    beside(build.digest())
    monkeypatch.setattr(build, "find_nvcc", lambda: None)
    assert build.is_prebuilt() and build.unsupported_reason() is None
    assert build.load(90)._name == str(build.FOLDER / build.LIBRARY)


@pytest.mark.parametrize("digest", ["0123456789abcdef", None], ids=str)
def test_a_prebuilt_library_of_other_sources_is_not(digest, beside, monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(build, "find_nvcc", lambda: None)
    assert build.unsupported_reason() == (
        "the kernels are not built and there is no nvcc: install the CUDA toolkit or set CUDA_HOME"
    )
    beside(digest)
    _forget()
    reason = build.unsupported_reason()
    assert "was built from other sources and there is no nvcc: install" in reason
    with pytest.raises(build.BuildError, match="nvcc was not found"):
        build.load(90)
    monkeypatch.setattr(build, "find_nvcc", lambda: "/somewhere/nvcc")
    assert build.unsupported_reason() is None
    built = []
    monkeypatch.setattr(build, "build", lambda out, arches: built.append((out, arches)))
    with pytest.raises(OSError):  # nothing was built in truth
        build.load(90)
    assert built == [(build._cached(90), (90,))]


def test_a_library_that_does_not_load_is_not_used(beside, monkeypatch):
    (build.FOLDER / build.LIBRARY).write_text("no library")
    monkeypatch.setattr(build, "find_nvcc", lambda: "/somewhere/nvcc")
    assert not build.is_prebuilt() and build.unsupported_reason() is None


def test_an_edited_source_is_other_sources(beside):
    beside(build.digest())
    with (build.FOLDER / "../cpu/fit.h").open("a") as file:
        file.write("// edited\n")
    _forget()
    assert not build.is_prebuilt()
