"""Device code: `.fused` (Triton), `.cpu` (C++) and `.cuda` (CUDA C++)."""

from pathlib import Path

if not Path(__file__).with_name("fused").is_dir():  # a checkout has them in a folder of their own
    __path__ = [str(Path(__file__).resolve().parents[2] / "kernels")]
