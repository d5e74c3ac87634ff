"""The installed version; a checkout that is not installed is refused here, with what to do."""

from importlib import metadata, util

if util.find_spec("liftplace.kernels") is None:  # mapped from kernels/fused by the installation
    raise ImportError(
        "liftplace is imported from a checkout that is not installed, so its kernels cannot be "
        "found: run `pip install -e .` in the checkout's top folder, or start from another folder"
    )

__version__ = metadata.version("liftplace")
