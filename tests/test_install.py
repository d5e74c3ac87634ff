"""What an installation brings, what importing it costs, and how it lives beside other packages."""

import importlib.metadata
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import torch

from liftplace.kernels.cpu import op
from liftplace.kernels.cpu.sources import SUFFIX
from liftplace.kernels.cuda import build

ROOT = Path(__file__).resolve().parents[1]
COMPILER = shutil.which("g++") or shutil.which("clang++")


def _python(code: str, *flags: str, cwd, **variables) -> subprocess.CompletedProcess:
    environment = {**os.environ, **variables}
    command = [sys.executable, *flags, "-c", code]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)


def _check(result: subprocess.CompletedProcess) -> str:
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", out, ROOT]
    subprocess.run(command, check=True, capture_output=True)
    (file,) = out.glob("liftplace-*.whl")
    return file


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """A folder that holds the wheel's files and a stand-in for Hugging Face's `kernels`."""
    site = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    (site / "kernels").mkdir()
    (site / "kernels" / "__init__.py").write_text("OWNER = 'somebody else'\n")
    return site


def test_wheel_holds_the_packages_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"liftplace"}
    for needed in ("liftplace/kernels/fused/place.py", "liftplace/demo/__init__.py"):
        assert needed in names
    assert not [name for name in names if name.endswith(".safetensors")]  # the demo's teacher
    assert "liftplace/py.typed" in names
    packages = {path.parent for path in (ROOT / "liftplace").rglob("__init__.py")}
    for package in packages:
        assert f"{package.relative_to(ROOT).as_posix()}/__init__.py" in names


def test_one_wheel_for_every_python(wheel):
    """What is compiled opens by ctypes and is named by no Python's version."""
    assert "-py3-none-" in wheel.name
    compiled = [name for name in zipfile.ZipFile(wheel).namelist() if "_native" in name]
    assert compiled == ([f"liftplace/kernels/cpu/_native{SUFFIX}"] if COMPILER else [])


def test_the_demo_of_a_wheel_says_where_its_teacher_is(installed, tmp_path):
    code = "import sys; from liftplace.cli import main; main(['demo'])"
    result = _python(code, cwd=tmp_path, PYTHONPATH=str(installed))
    assert result.returncode == 2
    assert "teacher is in liftplace's repository" in result.stderr.splitlines()[-1]


@pytest.mark.parametrize("where", ["elsewhere", "checkout"])
def test_wheel_beside_a_package_named_kernels(installed, tmp_path, where):
    """liftplace.kernels is this project's, kernels is not, from any working directory.

    In the checkout Python finds its liftplace folder first, which is not installed there.
    """
    code = "import kernels; from liftplace.kernels.fused import launch\n"
    code += "print(kernels.OWNER, launch.__file__)"
    if where == "checkout":
        code = f"import sys; sys.path.insert(0, {str(installed)!r}); " + code
    flags, cwd = (["-P"], ROOT) if where == "checkout" else ([], tmp_path)
    result = _python(code, *flags, cwd=cwd, PYTHONPATH=str(installed))
    owner, file = _check(result).strip().rsplit(" ", 1)
    assert owner == "somebody else"
    assert Path(file).is_relative_to(installed)


def test_this_installation_beside_a_package_named_kernels(installed, tmp_path):
    """The installation under test (editable in CI), from the checkout and from elsewhere."""
    other = tmp_path / "other"
    (other / "kernels").mkdir(parents=True)
    (other / "kernels" / "__init__.py").write_text("OWNER = 'somebody else'\n")
    code = "import kernels, liftplace.kernels.fused.launch; print(kernels.OWNER)"
    for folder in (ROOT, tmp_path):
        assert _check(_python(code, cwd=folder, PYTHONPATH=str(other))) == "somebody else\n"


@pytest.mark.skipif(not COMPILER, reason="there is no C++ compiler here")
def test_the_cpu_op_is_built(installed, tmp_path):
    code = "from liftplace.kernels.cpu import op; print(op.LIBRARY)"
    origin = _check(_python(code, cwd=tmp_path, PYTHONPATH=str(installed))).strip()
    assert Path(origin).is_relative_to(installed)
    assert op.is_built(), op.not_built


def test_without_a_compiler_auto_uses_torch(tmp_path):
    """An installation where the compiler fails is complete but for impl="native"."""
    sources, site = tmp_path / "sources", tmp_path / "site"
    built = shutil.ignore_patterns("*.so", "build", ".git", "*.egg-info")
    shutil.copytree(ROOT, sources, ignore=built)  # without what was compiled before
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", site, sources]
    environment = {**os.environ, "CC": "false", "CXX": "false"}
    subprocess.run(command, check=True, capture_output=True, env=environment)
    code = """
import torch, liftplace
x = torch.randn(2, 3, 8, 8, requires_grad=True)
liftplace.place_loss(x, torch.zeros(2, 3, 8, 8)).backward()
try:
    liftplace.place_loss(x, torch.zeros(2, 3, 8, 8), impl="native")
except RuntimeError as error:
    print(error)
"""
    text = _check(_python(code, cwd=tmp_path, PYTHONPATH=str(site)))
    assert "found no C++ compiler" in text


def test_wheel_holds_what_the_cuda_kernels_are_built_from(installed):
    folder = installed / "liftplace" / "kernels" / "cuda"
    for name in (*build.SOURCES, *build.HEADERS):
        assert (folder / name).is_file(), name


def test_a_checkout_runs_without_an_installation(tmp_path):
    """In its top folder, beside all that is installed here but liftplace."""
    site, checkout = tmp_path / "site", tmp_path / "checkout"
    site.mkdir()
    for entry in Path(torch.__file__).parents[1].iterdir():
        if "liftplace" not in entry.name:
            (site / entry.name).symlink_to(entry)
    for name in ("liftplace", "kernels"):
        built = shutil.ignore_patterns("*.so", "__pycache__")
        shutil.copytree(ROOT / name, checkout / name, ignore=built)
    shutil.copy(ROOT / "pyproject.toml", checkout)
    code = """
import liftplace, torch
from importlib import metadata
import liftplace.kernels.fused.launch, liftplace.kernels.cuda.op, liftplace.kernels.cpu.op
try:
    metadata.version("liftplace")
except metadata.PackageNotFoundError:
    print(liftplace.__version__)
x = torch.randn(2, 3, 8, 8, requires_grad=True)
liftplace.place_loss(x, torch.zeros(2, 3, 8, 8), impl="torch").backward()
print(liftplace.kernels.fused.launch.__file__)
"""
    result = _python(code, "-S", cwd=checkout, PYTHONPATH=str(site))
    version, file = _check(result).split()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert version == project["version"] == importlib.metadata.version("liftplace")
    assert Path(file) == checkout / "kernels" / "fused" / "launch.py"


def test_import_is_light(tmp_path):
    """torch and numpy alone: nothing of Triton or the extras, and no device is touched."""
    code = """
import sys, torch
before = set(sys.modules)
import liftplace
heavy = {"triton", "diffusers", "accelerate", "safetensors", "matplotlib", "PIL", "tqdm", "tyro",
         "yaml", "torchmetrics", "scipy", "pandas"}
print(sorted(heavy & {name.split(".")[0] for name in set(sys.modules) - before}))
print(torch.cuda.is_initialized())
"""
    assert _check(_python(code, cwd=tmp_path)) == "[]\nFalse\n"


def test_requirements():
    required = importlib.metadata.requires("liftplace")
    base = {line.split(";")[0].strip() for line in required if "extra ==" not in line}
    assert {name.split(">")[0] for name in base} == {"torch", "numpy", "triton"}
    extras = importlib.metadata.metadata("liftplace").get_all("Provides-Extra")
    assert {"train", "demo", "eval", "test", "dev"} <= set(extras)
    assert not any("torchvision" in line for line in required)
