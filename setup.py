"""The compiled parts of an installation; everything else stands in pyproject.toml."""

import os
import runpy
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

_cpu = runpy.run_path("kernels/cpu/sources.py")
NATIVE = Extension(
    "liftplace.kernels.cpu._native",
    sources=["kernels/cpu/op.cpp"],
    depends=[str(header) for header in Path("kernels/cpu").glob("*.h")],
    language="c++",
    define_macros=[("LIFTPLACE_DIGEST", _cpu["digest"]())],
    extra_compile_args=list(_cpu["FLAGS"]),
    extra_link_args=["-pthread"],
    optional=True,  # without a compiler the rest installs, and impl="auto" uses PyTorch
)


class BuildKernels(build_ext):
    """The C++ op, and with LIFTPLACE_BUILD_CUDA=1 the CUDA kernels, whose failure is an error."""

    def run(self) -> None:
        self.force = True  # a library newer than its sources may still be of others
        super().run()
        if os.environ.get("LIFTPLACE_BUILD_CUDA") == "1":
            cuda = runpy.run_path("kernels/cuda/build.py")
            folder = "kernels/cuda" if self.inplace else f"{self.build_lib}/liftplace/kernels/cuda"
            cuda["build"](Path(folder, cuda["LIBRARY"]))

    def get_export_symbols(self, extension: Extension) -> list[str]:
        return extension.export_symbols  # loaded by ctypes: there is no module initialiser


setup(ext_modules=[NATIVE], cmdclass={"build_ext": BuildKernels})
