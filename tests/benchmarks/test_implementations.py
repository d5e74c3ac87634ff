"""What is timed follows from what the op offers here; what cannot run says why."""

import torch

from benchmarks.cases import Case, inputs
from benchmarks.implementations import implementations
from liftplace import _dispatch


def found_for(case, wanted=None):
    found, skipped = implementations(case, *inputs(case), wanted)
    return [implementation.name for implementation in found], skipped


CASE = Case("place", (1, 2, 8, 8), torch.float32, 16, "cpu", 1)


def test_every_impl_of_the_op_is_found_or_has_a_reason():
    found, skipped = found_for(CASE)
    assert found[0] == "naive" and {"torch", "mse", "copy"} <= set(found)
    assert set(_dispatch.IMPLEMENTATIONS) - {"auto", "reference"} <= {*found, *skipped}
    assert not set(found) & set(skipped) and all(skipped.values())
    assert "interpreter" in skipped["triton"]
    assert "compile-max-autotune" not in {*found, *skipped}  # compiles for minutes: on request


def test_only_those_wanted_beside_the_baseline():
    assert found_for(CASE, ["mse"]) == (["naive", "mse"], {})


def test_a_missing_compiler_is_a_reason(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setenv("PATH", "")
    found, skipped = found_for(CASE)
    assert "compile" not in found and "no no-such-compiler here" in skipped["compile"]


def test_copy_moves_the_bytes_of_the_floor():
    student, teacher = inputs(CASE)
    (copy,) = (i for i in implementations(CASE, student, teacher)[0] if i.name == "copy")
    target = copy.forward(student, teacher)
    assert 2 * target.nbytes == CASE.floor_bytes("copy") == 3 * student.nbytes
