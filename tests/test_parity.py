"""The authors' published loss functions, run on 128 inputs, against every implementation."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from liftplace import lift_loss, place_loss

_FILE = np.load(Path(__file__).parent / "data" / "authors_parity.npz")
CASES = json.loads(str(_FILE["cases"]))
# loss (relative), gradient (of its largest entry)
TOLERANCE = {torch.float64: (1e-9, 1e-6), torch.float32: (1e-5, 1e-4)}


def _name(case) -> str:
    keys = ("index", "method", "scope", "group_size", "coarse", "reduction")
    return "-".join(str(case[key]) for key in keys)


@pytest.mark.parametrize("case", CASES, ids=_name)
@pytest.mark.parametrize(
    "impl, dtype",
    [
        ("reference", torch.float64),
        ("torch", torch.float64),
        ("reference", torch.float32),
        ("torch", torch.float32),
        ("triton", torch.float32),
        ("cuda", torch.float32),
        ("native", torch.float32),
    ],
    ids=lambda value: str(value).removeprefix("torch."),
)
def test_authors_loss_and_gradient(case, impl, dtype, device):
    student = torch.from_numpy(_FILE[f"student_{case['inputs']}"]).to(device, dtype)
    teacher = torch.from_numpy(_FILE[f"teacher_{case['inputs']}"]).to(device, dtype)
    expected = torch.from_numpy(_FILE[f"grad_{case['index']}"]).to(device).double()
    student.requires_grad_()
    options = {"scope": case["scope"], "norm": case["coarse"], "reduction": case["reduction"]}
    if case["method"] == "place":
        loss_fn, options["group_size"] = place_loss, case["group_size"]
    else:
        loss_fn = lift_loss
    loss = loss_fn(student, teacher, eps=case["eps"], impl=impl, **options)
    loss.backward()
    of_loss, of_grad = TOLERANCE[dtype]
    assert abs(loss.item() - case["loss"]) <= of_loss * abs(case["loss"])
    assert (student.grad.double() - expected).abs().max() <= of_grad * expected.abs().max()


def test_all_cases_are_there():
    assert len(CASES) == 128
