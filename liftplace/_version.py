"""The installed version; an uninstalled checkout is refused here, once, with what to do."""

from importlib import metadata

try:
    __version__ = metadata.version("liftplace")
except metadata.PackageNotFoundError as error:
    raise ImportError(
        "liftplace is imported from a checkout that is not installed, so its kernels cannot be "
        "found: run `pip install -e .` in the checkout's top folder"
    ) from error
