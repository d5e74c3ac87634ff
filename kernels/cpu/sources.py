"""What the C++ op is compiled from and with, for setup.py, which runs this file by itself."""

import hashlib
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
SOURCE = "op.cpp"
SUFFIX = ".dll" if sys.platform == "win32" else ".so"  # no Python's own: ctypes opens the library
FLAGS = ("-std=c++17", "-O3", "-g0", "-ffp-contract=off", "-fvisibility=hidden", "-pthread")


def digest() -> str | None:
    """Of the sources and the flags; compiled in, and compared when the library is loaded.

    None where the sources are not there: a wheel holds the headers alone.
    """
    if not (FOLDER / SOURCE).is_file():
        return None
    sha256 = hashlib.sha256(" ".join(FLAGS).encode())
    for path in (FOLDER / SOURCE, *sorted(FOLDER.glob("*.h"))):
        sha256.update(path.read_bytes())
    return sha256.hexdigest()[:16]
