"""A library that other sources were compiled to is not used, and the reason is given."""

import pytest
import torch

from liftplace import _dispatch, place_loss
from liftplace.kernels.cpu import op, sources

from .compiler import SOURCE, build

SHARED = ("-O1", "-fPIC", "-shared", "-pthread")


def test_a_library_of_these_sources(tmp_path):
    define = f"-DLIFTPLACE_DIGEST={sources.digest()}"
    path = build(SOURCE / "op.cpp", tmp_path / "op.so", *SHARED, define)
    library, reason = op.open_library(path)
    assert reason is None
    assert library.liftplace_digest().decode() == sources.digest()


@pytest.mark.parametrize("define", [(), ("-DLIFTPLACE_DIGEST=0123456789abcdef",)], ids=len)
def test_a_library_of_other_sources(define, tmp_path):
    path = build(SOURCE / "op.cpp", tmp_path / "op.so", *SHARED, *define)
    library, reason = op.open_library(path)
    assert library is None
    assert "built from other sources: run `pip install -e .` again" in reason


def test_a_library_without_the_functions(tmp_path):
    (tmp_path / "other.cpp").write_text("int nothing;")
    path = build(tmp_path / "other.cpp", tmp_path / "op.so", *SHARED)
    assert "built from other sources" in op.open_library(path)[1]


def test_a_library_that_does_not_load(tmp_path):
    (tmp_path / "op.so").write_bytes(b"of another machine")
    assert "does not load (" in op.open_library(tmp_path / "op.so")[1]


def test_a_wheel_has_nothing_to_compare(monkeypatch, tmp_path):
    path = build(SOURCE / "op.cpp", tmp_path / "op.so", *SHARED)
    monkeypatch.setattr(sources, "FOLDER", tmp_path)  # without op.cpp
    assert sources.digest() is None
    assert op.open_library(path)[1] is None


@pytest.mark.parametrize("name", ["op.cpp", "fit.h"])
def test_the_digest_is_of_every_file(name, monkeypatch, tmp_path):
    for path in (SOURCE / "op.cpp", *SOURCE.glob("*.h")):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    expected = sources.digest()
    monkeypatch.setattr(sources, "FOLDER", tmp_path)
    assert sources.digest() == expected
    with (tmp_path / name).open("a") as file:
        file.write("// edited\n")
    assert sources.digest() != expected


def test_auto_does_without_it_and_native_says_why(monkeypatch):
    x = torch.randn(1, 1, 32)
    monkeypatch.setattr(op, "not_built", "its extension was built from other sources")
    assert _dispatch.choose("auto", x, x, 32) == "torch"
    with pytest.raises(RuntimeError, match="built from other sources, or use impl='torch'"):
        place_loss(x, x, impl="native")
