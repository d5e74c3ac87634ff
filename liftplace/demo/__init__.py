"""The demo: small students on real digits, one that fails and what mends it."""

from importlib import import_module

_HOME = {"DemoSettings": "settings", "FAST": "settings", "FULL": "settings", "run": "experiment"}
__all__ = sorted(_HOME)


def __getattr__(name: str):
    """Imports on first use: ``--help`` should not wait for diffusers."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
