"""Shared by every test: the interpreter where there is no GPU, poisoned memory, one seed."""

import importlib.util
import os

import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # read when triton is imported, so before anything does

import pytest

from liftplace.kernels.cpu.op import is_built
from liftplace.kernels.cuda import build

torch.set_num_threads(1)  # small tensors; a second thread only waits for whatever else runs

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
IMPLS = ["torch", "triton", "cuda", "native"]


def pytest_pycollect_makemodule(module_path, parent):
    return _Module.from_parent(parent, path=module_path)


class _Module(pytest.Module):
    """Without the extras, whose heart diffusers is, a module that imports one skips and says so."""

    def collect(self):
        try:
            return super().collect()
        except self.CollectError as error:
            cause = error.__cause__
            name = cause.name if isinstance(cause, ModuleNotFoundError) else "liftplace"
            of_project = name.split(".")[0] in ("benchmarks", "liftplace", "tests")
            if of_project or importlib.util.find_spec("diffusers"):
                raise
            pytest.skip(f"needs {name}: `pip install liftplace[test]`")


def pytest_collection_modifyitems(config, items):
    wrong = [item for item in items if not _can_run(item)]
    config.hook.pytest_deselected(items=wrong)
    items[:] = [item for item in items if _can_run(item)]
    reason = build.unsupported_reason() if torch.cuda.is_available() else None
    for item in items if reason else ():
        if _runs_cuda(item):
            item.add_marker(pytest.mark.skip(reason=reason))


def _runs_cuda(item) -> bool:
    """Whether it launches the CUDA kernels, which a GPU without nvcc cannot build."""
    parameters = item.callspec.params if hasattr(item, "callspec") else {}
    of_cuda = parameters.get("impl") == "cuda" or item.path.parent.name == "cuda"
    return of_cuda and item.get_closest_marker("gpu") is not None


def _can_run(item) -> bool:
    """Without a GPU not what is marked gpu; each implementation where it has a device and is built.
    With a GPU no Triton kernel on CPU tensors, as Triton then compiles instead of interpreting."""
    parameters = item.callspec.params if hasattr(item, "callspec") else {}
    impl, device = parameters.get("impl"), parameters.get("device")
    if (
        (impl, device) in (("native", "cuda"), ("cuda", "cpu"))
        or impl == "native"
        and not is_built()
    ):
        return False
    if not torch.cuda.is_available():  # where nothing runs, they are at least collected
        return not item.get_closest_marker("gpu") or item.config.option.collectonly
    runs_triton = impl == "triton" or item.path.parent.name == "fused"
    return not (device == "cpu" and runs_triton)


@pytest.fixture(params=DEVICES)
def device(request) -> str:
    """Where the tensors of a test live; the same test runs on CPU and, marked gpu, on CUDA."""
    return request.param


@pytest.fixture(params=IMPLS)
def impl(request) -> str:
    """Every implementation that has a kernel or a closed form."""
    return request.param


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _poisoned_memory():
    """torch.empty and its like return NaN (integers: the largest), so unwritten outputs show."""
    deterministic = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    yield
    torch.use_deterministic_algorithms(deterministic)
