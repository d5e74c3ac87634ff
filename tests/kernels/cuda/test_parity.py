"""The authors' cases through the public op, emulated; tests/test_parity.py has them on a GPU."""

import pytest
import torch

from liftplace.kernels.cuda import op
from tests import test_parity as parity

from .harness import emulated


@pytest.mark.parametrize("case", parity.CASES, ids=parity._name)
def test_authors_loss_and_gradient(case, emulation, monkeypatch):
    monkeypatch.setattr(op, "unsupported_reason", lambda student, teacher, length: None)
    with emulated(monkeypatch, emulation):
        parity.test_authors_loss_and_gradient(case, "cuda", torch.float32, "cpu")
