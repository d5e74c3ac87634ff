"""The weight's three kinds and the sum over blocks."""

import pytest
import torch

from tests.kernels.harness import pair

from .harness import assert_agrees, run


@pytest.mark.parametrize("size", [None, 16])
@pytest.mark.parametrize("weight", ["adaptive", 0.0, 0.25, torch.tensor(0.75)])
@pytest.mark.parametrize("scale", [1, 97])
def test_weight_and_scale(size, weight, scale, device):
    if isinstance(weight, torch.Tensor):
        weight = weight.to(device)
    student, teacher = pair(3, 97, device)
    actual = assert_agrees(student, teacher, size, weight=weight)
    coarse, fine, deviation, w = actual.stats
    if weight == "adaptive":
        torch.testing.assert_close(w, 1 - deviation.clamp(max=1))
    else:
        assert w == weight
    scaled = run(student, teacher, size, weight=weight, scale=scale)
    torch.testing.assert_close(scaled.loss, scale * (coarse + w * fine))
    torch.testing.assert_close(scaled.grad, scale * actual.grad)


def test_more_rows_than_threads(device):
    assert_agrees(*pair(1100, 3, device), 2)


def test_a_far_student_has_weight_0(device):
    student, teacher = pair(2, 97, device)
    assert run(student, 100 + 5 * teacher, 16).stats[3] == 0
