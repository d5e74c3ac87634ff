"""What an op must move, as docs/kernels.md has it."""

import pytest
import torch

from benchmarks.cases import Case

BYTES = {  # an element: of the op, of F.mse_loss, of the copy
    ("lift", torch.float32): (20, 20, 12),
    ("lift", torch.bfloat16): (10, 10, 6),
    ("place", torch.float32): (24, 20, 12),
    ("place", torch.bfloat16): (14, 10, 6),
}


@pytest.mark.parametrize("op, dtype", BYTES)
def test_floor_bytes(op, dtype):
    case = Case(op, (2, 3, 8, 8), dtype, 16 if op == "place" else None, "cpu", 1)
    found = [case.floor_bytes(name) / case.elements for name in ("", "mse", "copy")]
    assert tuple(found) == BYTES[op, dtype]
    assert case.floor_bytes("triton") == case.floor_bytes()


def test_above_65536_groups_a_number_takes_four_bytes():
    at, above = (
        Case("place", (1, 1, n), torch.float32, 2, "cpu", 1) for n in (1 << 17, 1 + (1 << 17))
    )
    assert at.floor_bytes() == 24 * at.elements and above.floor_bytes() == 28 * above.elements
