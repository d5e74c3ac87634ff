"""PLACE in CUDA C++ against the float64 reference; group numbers exactly."""

import pytest
import torch

from tests.kernels.harness import DTYPES, group_numbers, pair

from .harness import assert_agrees, run

SIZES = [(1, 4, 2), (2, 9, 4), (3, 7, 3), (3, 64, 16), (2, 97, 16), (2, 256, 16), (1, 1031, 2)]
SIZES += [(2, 1024, 16), (1, 2048, 1024), (2, 2049, 100), (1, 4096, 256), (1, 8192, 16)]
SIZES += [(1, 9001, 3), (1, 16_384, 16)]


@pytest.mark.parametrize("rows, n, size", SIZES)
def test_sizes(rows, n, size, device):
    assert_agrees(*pair(rows, n, device), size)


@pytest.mark.parametrize("size", [2, 3, 16, 100, 128, 129, 256, 2048, 2049, 2999])
def test_group_sizes(size, device):
    """One lane a group to a whole block; the last group ragged."""
    assert_agrees(*pair(2, 3000, device), size)


@pytest.mark.parametrize("size", [4, 16, 32, 128, 2048])
@pytest.mark.parametrize("groups", [2, 3])
def test_one_element_more_in_the_last_group(size, groups, device):
    """Also where a lane or a team would be full without it."""
    assert_agrees(*pair(2, groups * size + 1, device), size)


@pytest.mark.parametrize("rows, n, size", [(1, 40_001, 16), (1, 40_001, 20_000), (1, 33_793, 64)])
def test_one_element_more_in_rows_longer_than_a_block(rows, n, size, device):
    assert_agrees(*pair(rows, n, device), size)


@pytest.mark.parametrize("norm", ["l1", "l2"])
@pytest.mark.parametrize("terms, weight", [("both", 0.25), ("coarse", "adaptive"), ("fine", 0.5)])
def test_options(norm, terms, weight, device):
    options = {"norm": norm, "terms": terms, "weight": weight, "eps": 1e-4, "grad_out": -3.0}
    assert_agrees(*pair(2, 100, device), 16, **options)


@pytest.mark.parametrize("student_dtype", DTYPES)
@pytest.mark.parametrize("teacher_dtype", DTYPES)
@pytest.mark.parametrize("n", [100, 99])
def test_dtypes(student_dtype, teacher_dtype, n, device):
    assert_agrees(*pair(2, n, device, student_dtype, teacher_dtype), 16)


def test_a_tensor_that_starts_off_16_bytes(device):
    student, teacher = (x.flatten()[2:].view(2, 100) for x in pair(1, 202, device))
    assert student.data_ptr() % 16 != 0
    assert_agrees(student, teacher, 16)


@pytest.mark.parametrize("kind", ["constant student", "constant pair"])
def test_no_variance(kind, device):
    student, teacher = pair(2, 97, device)
    student = torch.full_like(student, 0.1)
    if kind == "constant pair":
        teacher = torch.full_like(teacher, 1234.56)
    assert_agrees(student, teacher, 16)


@pytest.mark.parametrize("magnitude", [1e-15, 1e-3, 1e3, 1e12])
def test_magnitudes(magnitude, device):
    student, teacher = pair(2, 97, device)
    assert_agrees(magnitude * student, magnitude * teacher, 16)


@pytest.mark.parametrize("which", ["student", "teacher"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("n", [97, 3000])
def test_a_bad_number_gives_no_quiet_loss(which, bad, n, device):
    tensors = dict(zip(("student", "teacher"), pair(3, n, device), strict=True))
    tensors[which][1, 40] = bad
    for terms in ("both", "coarse", "fine"):
        actual = run(**tensors, size=16, terms=terms)
        assert not actual.loss.isfinite()
        assert not actual.grad[1, 40].isfinite()


def test_rows_of_nothing_but_nan(device):
    student, teacher = pair(2, 300, device)
    actual = run(student * float("nan"), teacher, 16)
    assert actual.loss.isnan() and actual.stats.isnan().all()
    assert torch.equal(actual.group[0].cpu(), torch.arange(300) // 16)


@pytest.mark.parametrize("n", [2, 100, 33_000])
def test_groups_of_one_element(n, device):
    """v = 0: the slope is 0, the intercept the teacher, and numbers past 15 bits."""
    student, teacher = pair(1, n, device)
    actual = run(student, teacher, 1)
    assert torch.equal(actual.group, group_numbers(student, teacher, 1))
    assert (actual.coef[0] + 1).abs().max() < 1e-6
    intercepts = actual.coef[1].gather(1, actual.group)  # back in the row's order
    torch.testing.assert_close(intercepts, teacher, rtol=1e-6, atol=1e-6)
    expected = 1 + teacher.abs().double().mean()
    torch.testing.assert_close(actual.stats[0].double(), expected, rtol=1e-6, atol=0)


def test_without_group_numbers(device):
    student, teacher = pair(2, 97, device)
    without, full = run(student, teacher, 16, with_groups=False), run(student, teacher, 16)
    assert without.group is None
    assert torch.equal(without.coef, full.coef)
    assert torch.equal(without.loss, full.loss) and torch.equal(without.stats, full.stats)


@pytest.mark.gpu
@pytest.mark.parametrize(
    "rows, n, size",
    [(256, 1024, 16), (288, 4096, 16), (256, 16_384, 16), (5, 9001, 100), (4096, 256, 16)],
)
@pytest.mark.parametrize("dtype", DTYPES)
def test_real_sizes(rows, n, size, dtype):
    assert_agrees(*pair(rows, n, "cuda", dtype), size)
