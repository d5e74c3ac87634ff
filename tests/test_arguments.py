"""Bad input: the error names the argument, shows the value and says what to do."""

from pathlib import Path

import numpy as np
import pytest
import torch

from liftplace import lift_loss, linear_fit, place_loss, reference
from liftplace.kernels.cpu import op as native

X = torch.zeros(2, 3, 4, 4)

BAD_TENSORS = {
    "no tensor": ([1.0], X, TypeError, "student must be a torch.Tensor, got list"),
    "shapes": (X, X[:1], ValueError, r"same shape, got \(2, 3, 4, 4\) and \(1, 3, 4, 4\)"),
    "integers": (X.int(), X.int(), TypeError, r"student must be float32.*int32.*student.float\(\)"),
    "complex": (X, X.to(torch.complex64), TypeError, "teacher must be float32.*complex64"),
    "devices": (X, X.to("meta"), ValueError, "one device, got cpu and meta.*teacher.to"),
    "teacher's grad": (X, X.clone().requires_grad_(), ValueError, r"requires grad.*no_grad"),
    "too flat": (X[0, 0, 0], X[0, 0, 0], ValueError, r"at least 2 dimensions.*\(4,\).*unsqueeze"),
    "0-d": (X.sum(), X.sum(), ValueError, "at least 2 dimensions"),
    "no elements": (X[..., :0], X[..., :0], ValueError, r"at least one element.*\(2, 3, 4, 0\)"),
    "no channels": (X[:, :0], X[:, :0], ValueError, "at least one element"),
}

ONE_ELEMENT = {
    (4, 6): r"scope='channel' makes rows of one element out of shape \(4, 6\).*scope='sample'",
    (4, 6, 1, 1): r"rows of one element out of shape \(4, 6, 1, 1\).*pass scope='sample'",
    (4, 1, 1): "samples of at least 2 elements",
}

BAD_OPTIONS = {
    "scope": ({"scope": "row"}, ValueError, "scope='row' is not known: pass one of 'channel'"),
    "norm": ({"norm": 2}, ValueError, "norm=2 is not known: pass one of 'l1', 'l2'"),
    "terms": ({"terms": "all"}, ValueError, "terms='all'.*'both'"),
    "reduction": ({"reduction": "none"}, ValueError, "reduction='none'.*'mean'"),
    "weight text": ({"weight": "auto"}, ValueError, "weight='auto'.*'adaptive'"),
    "weight large": ({"weight": 1.5}, ValueError, r"weight=1.5 is outside \[0, 1\]"),
    "weight nan": ({"weight": float("nan")}, ValueError, "weight=nan is outside"),
    "weight type": ({"weight": None}, TypeError, "weight must be.*NoneType"),
    "weight shape": ({"weight": torch.ones(2)}, ValueError, r"0-d.*\(2,\)"),
    "eps zero": ({"eps": 0.0}, ValueError, "eps=0.0 must be positive"),
    "eps tiny": ({"eps": 1e-46}, ValueError, "eps=1e-46 must be.*a normal number of float32"),
    "eps huge": ({"eps": 1e39}, ValueError, "eps=1e[+]39 must be.*a normal number of float32"),
    "eps nan": ({"eps": float("nan")}, ValueError, "eps=nan must be positive"),
    "eps type": ({"eps": "1e-7"}, TypeError, "eps must be a float, got str"),
}

BAD_GROUPS = {
    "both": ({"group_size": 4, "num_groups": 4}, ValueError, "group_size=4 and num_groups=4"),
    "one": ({"group_size": 1}, ValueError, "group_size=1 is too small: pass at least 2"),
    "float": ({"group_size": 4.0}, TypeError, "group_size must be an int, got float"),
    "bool": ({"num_groups": True}, TypeError, "num_groups must be an int, got bool"),
    "none": ({"num_groups": 0}, ValueError, "num_groups=0 is too small: pass at least 1"),
    "many": (
        {"num_groups": 17},
        ValueError,
        "num_groups=17 leaves groups of one.*at most 8",
    ),
}


@pytest.mark.parametrize("ops", [None, reference], ids=["public", "reference"])
@pytest.mark.parametrize("shape", ONE_ELEMENT)
def test_rows_of_one_element(shape, ops):
    for op in (lift_loss, place_loss, linear_fit):
        op = op if ops is None else getattr(ops, op.__name__)
        with pytest.raises(ValueError, match=ONE_ELEMENT[shape]):
            op(torch.zeros(shape), torch.zeros(shape))


def test_numpy_integers_are_integers():
    student, teacher = torch.randn(2, 3, 40), torch.randn(2, 3, 40)
    for name, value in (("group_size", 8), ("num_groups", 5)):
        for impl in ("auto", "torch", "reference"):
            numpy = place_loss(student, teacher, impl=impl, **{name: np.int64(value)})
            assert numpy == place_loss(student, teacher, impl=impl, **{name: value})


@pytest.mark.parametrize("ops", [None, reference], ids=["public", "reference"])
@pytest.mark.parametrize("case", BAD_TENSORS.values(), ids=BAD_TENSORS.keys())
def test_tensors(case, ops):
    student, teacher, error, match = case
    for op in (lift_loss, place_loss, linear_fit):
        op = op if ops is None else getattr(ops, op.__name__)
        with pytest.raises(error, match=match):
            op(student, teacher)


@pytest.mark.parametrize("ops", [None, reference], ids=["public", "reference"])
@pytest.mark.parametrize("case", BAD_OPTIONS.values(), ids=BAD_OPTIONS.keys())
def test_options(case, ops):
    options, error, match = case
    for op in (lift_loss, place_loss):
        op = op if ops is None else getattr(ops, op.__name__)
        with pytest.raises(error, match=match):
            op(X, X, **options)


@pytest.mark.parametrize("ops", [None, reference], ids=["public", "reference"])
@pytest.mark.parametrize("case", BAD_GROUPS.values(), ids=BAD_GROUPS.keys())
def test_groups(case, ops):
    options, error, match = case
    for op in (place_loss, linear_fit):
        op = op if ops is None else getattr(ops, op.__name__)
        with pytest.raises(error, match=match):
            op(X, X, **options)


@pytest.mark.parametrize(
    "impl, error, match",
    [
        ("fast", ValueError, "impl='fast' is not known: pass one of 'auto'"),
        ("cuda", RuntimeError, "impl='cuda' cannot run here: .*NVIDIA GPU.*use impl='torch'"),
    ],
)
def test_impl(impl, error, match):
    for op in (lift_loss, place_loss, linear_fit):
        with pytest.raises(error, match=match):
            op(X, X, impl=impl)


def test_triton_says_why_it_cannot_run(monkeypatch):
    with pytest.raises(RuntimeError, match="float32, got float64 input; use impl='torch'"):
        lift_loss(X.double(), X, impl="triton")
    long = torch.zeros(1, 1, (1 << 20) + 1)
    with pytest.raises(RuntimeError, match="rows of 1048577 elements are longer than 1048576"):
        lift_loss(long, long, impl="triton")
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(RuntimeError, match="needs a GPU, the tensors are on cpu"):
        lift_loss(X, X, impl="triton")


def test_native_says_why_it_cannot_run(monkeypatch):
    with pytest.raises(RuntimeError, match="float32, got float64 input; use impl='torch'"):
        lift_loss(X.double(), X, impl="native")
    with pytest.raises(RuntimeError, match="the tensors are on meta; use impl='auto'"):
        lift_loss(X.to("meta"), X.to("meta"), impl="native")
    monkeypatch.setattr(native, "not_built", native.open_library(Path("/nowhere"))[1])
    with pytest.raises(RuntimeError, match="found no C.. compiler; install one and reinstall"):
        lift_loss(X, X, impl="native")


def test_scopes_need_their_dimensions_only():
    assert lift_loss(X[0, 0], X[0, 0], scope="sample") >= 0  # (B, N)
    assert place_loss(X[0], X[0]) >= 0  # (B, C, N)
