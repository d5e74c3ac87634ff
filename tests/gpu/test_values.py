"""The values of what ships: without the deterministic mode that the other tests run in."""

import pytest
import torch

from liftplace import lift_loss, place_loss
from tests.oracle import assert_matches

from .harness import IMPLS, SHAPES, pair, runs_here

pytestmark = pytest.mark.gpu
CALLS = [(lift_loss, {}), (place_loss, {"group_size": 16}), (place_loss, {"group_size": 100})]


@pytest.mark.parametrize("impl", ["torch", *IMPLS])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("op, options", CALLS, ids=["lift", "place", "place-100"])
def test_agrees_with_the_reference(op, options, shape, dtype, impl):
    runs_here(impl)
    assert not torch.are_deterministic_algorithms_enabled()
    student, teacher = (x.detach().to(dtype) for x in pair(shape))
    assert_matches(op, student, teacher, impl=impl, **options)
