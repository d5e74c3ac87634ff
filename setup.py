"""The compiled parts of an installation; everything else stands in pyproject.toml."""

import os
import runpy
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
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

    def get_ext_filename(self, fullname: str) -> str:
        return str(Path(*fullname.split(".")).with_suffix(_cpu["SUFFIX"]))

    def get_export_symbols(self, extension: Extension) -> list[str]:
        return extension.export_symbols  # loaded by ctypes: there is no module initialiser


class Wheel(bdist_wheel):
    """One wheel for every Python 3: what is compiled uses no header of Python's."""

    def get_tag(self) -> tuple[str, str, str]:
        *_, platform = super().get_tag()
        return "py3", "none", platform


setup(ext_modules=[NATIVE], cmdclass={"build_ext": BuildKernels, "bdist_wheel": Wheel})
