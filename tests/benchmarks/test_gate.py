"""The gate lets right implementations pass and stops wrong ones."""

import re

import pytest
import torch

from benchmarks import gate, naive
from benchmarks.cases import Case, inputs
from benchmarks.implementations import Implementation, implementations
from liftplace import place_loss

DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def make(device, op="place", dtype=torch.float32, shape=(2, 2, 16, 16)):
    case = Case(op, shape, dtype, 16 if op == "place" else None, device, 1)
    student, teacher = inputs(case)
    return case, student, teacher, gate.expected(case, student, teacher)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("op", ["place", "lift"])
def test_check_passes_every_implementation(device, op, dtype):
    case, student, teacher, want = make(device, op, dtype)
    found, _ = implementations(case, student, teacher, ["torch", "triton", "mse", "copy"])
    assert {"naive", "torch"} <= {implementation.name for implementation in found}
    for implementation in found:
        gate.check(implementation, case, student, teacher, want)


def test_check_passes_long_rows_with_near_ties():
    case, student, teacher, want = make("cpu", shape=(1, 1, 128, 128))
    for implementation in implementations(case, student, teacher, ["torch"])[0]:
        gate.check(implementation, case, student, teacher, want)


def scaled_loss(s, t):
    return naive.place_loss(s, t) * 1.01


def scaled_gradient(s, t):
    return naive.place_loss(s, t) * 0.99 + 0.01 * naive.place_loss(s.detach(), t)


def other_groups(s, t):
    return place_loss(s, t, group_size=17)


def nan(s, t):
    return place_loss(s, t) * float("nan")


@pytest.mark.parametrize("wrong", [scaled_loss, scaled_gradient, other_groups, nan])
def test_check_stops_a_wrong_implementation(wrong):
    case, student, teacher, want = make("cpu")
    message = re.escape(f"wrong is wrong on {case}")
    with pytest.raises(gate.GateError, match=message):
        gate.check(Implementation("wrong", wrong), case, student, teacher, want)


def test_check_stops_ties_that_are_not_by_index():
    def last_index_first(s, t):
        return naive.place_loss(s.flatten(2).flip(-1), t.flatten(2).flip(-1), stable=True)

    case, student, teacher, want = make("cpu", dtype=torch.bfloat16)
    assert not want.untied.equal(want.smooth), "the inputs must tie"
    with pytest.raises(gate.GateError):
        gate.check(Implementation("flipped", last_index_first), case, student, teacher, want)


def test_check_stops_where_too_little_can_be_compared():
    case, student, teacher, want = make("cpu")
    same = teacher.clone().requires_grad_()  # b = 1 and a = 0 everywhere: all on the kinks
    implementation = Implementation("torch", place_loss)
    with pytest.raises(gate.GateError, match="only 0.0% of the elements"):
        gate.check(implementation, case, same, teacher, gate.expected(case, same, teacher))
