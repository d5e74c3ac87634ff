"""The kernels of a checkout; an installation has `kernels/` itself in this place."""

from pathlib import Path

_FOLDER = Path(__file__).resolve().parents[2] / "kernels"
__path__ = [str(_FOLDER / "fused"), str(_FOLDER)]  # beside Triton's modules: .cpu and .cuda
