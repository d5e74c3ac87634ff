"""A Triton driver that compiles for an architecture that need not be here and launches nothing."""

from dataclasses import dataclass

import torch
from triton.backends.compiler import GPUTarget
from triton.backends.driver import DriverBase

# Shared memory one program may use, bytes (CUDA C++ programming guide, compute capabilities).
MAX_SHARED = {80: 163 * 1024, 90: 227 * 1024, 100: 227 * 1024}


@dataclass(frozen=True)
class Launch:
    """What the driver was asked to launch."""

    source: object
    metadata: object
    cubin: bytes
    programs: int

    @property
    def constants(self) -> dict[str, object]:
        names = self.source.fn.arg_names
        return {names[i]: value for (i,), value in self.source.constants.items()}


class CompileOnlyDriver(DriverBase):
    """A Triton driver for `arch` that notes every launch in `launches` and launches nothing.

    Triton's base class demands two methods that only launching and timing would call; they refuse.
    """

    def __init__(self, arch: int):
        self.arch = arch
        self.launches = []
        self.utils = self  # Triton asks `driver.utils` for the two methods at the end
        self._loading = {}

    @classmethod
    def is_active(cls) -> bool:
        return True

    def get_current_device(self) -> int:
        return self.arch  # Triton caches kernels by device

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self.arch, 32)

    def get_active_torch_device(self) -> torch.device:
        return torch.device("cpu")

    def get_benchmarker(self):
        raise NotImplementedError("nothing runs on this driver")

    def map_python_to_cpp_type(self, ty: str) -> str:
        raise NotImplementedError("nothing is launched on this driver")

    def launcher_cls(self, source, metadata):
        self._loading = loading = {}  # `load_binary` follows

        def launch(grid_x, grid_y, grid_z, *_):
            programs = grid_x * grid_y * grid_z
            self.launches.append(Launch(source, metadata, loading["cubin"], programs))

        return launch

    def get_device_properties(self, device: int) -> dict[str, int]:
        return {"max_shared_mem": MAX_SHARED[self.arch]}

    def load_binary(self, name: str, cubin: bytes, shared: int, device: int):
        self._loading["cubin"] = cubin
        return cubin, None, 0, 0, 1024  # module, function, registers, spills, most threads

    def unload_module(self, module) -> None:
        pass
