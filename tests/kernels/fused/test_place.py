"""PLACE's kernels against the float64 reference; group numbers exactly."""

import pytest
import torch

from liftplace._contract import Options
from liftplace.kernels.fused.launch import place_launch
from liftplace.kernels.fused.place import place_fwd
from tests.kernels.harness import DTYPES, group_numbers, pair

from .harness import assert_agrees, few_programs, run

# One launch; one chunk and tiles; several rounds and groups wider than a tile.
SMALL = {"max_block": 16, "chunk": 32, "fan_in": 4, "tile": 128, "max_tile": 64}


ONE_LAUNCH = [(1, 4, 2), (2, 7, 4), (3, 64, 16), (2, 98, 16), (1, 1030, 2), (2, 1024, 16)]
ONE_LAUNCH += [(1, 2048, 1024), (2, 300, 128), (1, 1500, 16)]
REAL = [(256, 1024, 16), (288, 4096, 16), (256, 16_384, 16), (48, 65_536, 16), (5, 9001, 100)]
REAL += [(1, 1_048_576, 15), (2, 1_048_576, 400_000)]


@pytest.mark.parametrize("rows, n, size", ONE_LAUNCH)
def test_one_launch(rows, n, size, device):
    assert place_launch(rows, n, size).sort is None
    assert_agrees(*pair(rows, n, device), size)


@pytest.mark.parametrize("rows, n, size", [(2, 97, 16), (1, 1031, 2), (2, 9, 4), (1, 257, 128)])
def test_one_element_more_in_the_last_group(rows, n, size, device):
    assert place_launch(rows, n, size).sort is not None  # a row of groups is no tile of groups
    assert_agrees(*pair(rows, n, device), size)


@pytest.mark.parametrize(
    "rows, n, size", [(2, 100, 3), (1, 1000, 100), (2, 331, 329), (1, 2000, 1998), (3, 7, 5)]
)
def test_sizes_that_are_no_power_of_two(rows, n, size, device):
    assert_agrees(*pair(rows, n, device), size)


@pytest.mark.parametrize("size", [3, 16, 64, 65, 100, 140])
def test_rounds_of_merging_and_wide_groups(size, device):
    launch = place_launch(2, 151, size, **SMALL)
    assert len(launch.sort.rounds) == 2
    assert (launch.trips > 1) == (size > 64)
    assert_agrees(*pair(2, 151, device), size, launch=launch)


@pytest.mark.parametrize("rows, n, size", [(1, 5000, 16), (1, 20_000, 16), (1, 10_000, 4999)])
def test_long_rows(rows, n, size, device):
    launch = place_launch(rows, n, size, **few_programs(device))
    assert_agrees(*pair(rows, n, device), size, launch=launch)


@pytest.mark.parametrize("n, dtype", [(33_000, torch.int16), (65_600, torch.int32)])
def test_group_numbers_past_fifteen_and_sixteen_bits(n, dtype, device):
    launch = place_launch(1, n, 1, **few_programs(device))
    student, teacher = pair(1, n, device)
    assert place_fwd(student, teacher, Options(1), launch)[0].dtype == dtype
    actual = run(student, teacher, 1, launch=launch)
    assert torch.equal(actual.group, group_numbers(student, teacher, 1))


@pytest.mark.parametrize("general", [False, True])
@pytest.mark.parametrize("norm", ["l1", "l2"])
@pytest.mark.parametrize("terms, weight", [("both", 0.25), ("coarse", "adaptive"), ("fine", 0.5)])
def test_options(norm, terms, weight, general, device):
    launch = place_launch(2, 100, 16, **SMALL) if general else None
    options = {"norm": norm, "terms": terms, "weight": weight, "eps": 1e-4, "grad_out": -3.0}
    assert_agrees(*pair(2, 100, device), 16, launch=launch, **options)


@pytest.mark.parametrize("student_dtype", DTYPES)
@pytest.mark.parametrize("teacher_dtype", DTYPES)
@pytest.mark.parametrize("size", [16, 10])
def test_dtypes(student_dtype, teacher_dtype, size, device):
    assert_agrees(*pair(2, 100, device, student_dtype, teacher_dtype), size)


@pytest.mark.parametrize("size", [16, 10])
@pytest.mark.parametrize("kind", ["all equal", "half tied", "constant student", "constant pair"])
def test_ties(kind, size, device):
    student, teacher = pair(2, 97, device)
    if kind == "all equal":
        student = student.round()
        teacher = student + 1.0
    elif kind == "half tied":
        teacher[:, ::2] = student[:, ::2]
    elif kind == "constant student":
        student = torch.full_like(student, 0.1)
    else:
        student, teacher = torch.full_like(student, 0.1), torch.full_like(teacher, 1234.56)
    assert_agrees(student, teacher, size)


@pytest.mark.parametrize("launch_options", [{}, SMALL], ids=["one launch", "general"])
def test_groups_of_one_element(launch_options, device):
    """v = 0: the slope is 0, the intercept the teacher, and no gradient passes."""
    student, teacher = pair(2, 100, device)
    launch = place_launch(2, 100, 1, **launch_options)
    actual = run(100 * student, 100 * teacher, 1, launch=launch)
    assert torch.equal(actual.coef[0], -torch.ones_like(actual.coef[0]))
    assert torch.equal(actual.grad, torch.zeros_like(actual.grad))
    expected = 1 + (100 * teacher).abs().double().mean()
    torch.testing.assert_close(actual.stats[0].double(), expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("size", [16, 10])
@pytest.mark.parametrize("magnitude", [1e-15, 1e-3, 1e3, 1e12])
def test_magnitudes(magnitude, size, device):
    student, teacher = pair(2, 97, device)
    assert_agrees(magnitude * student, magnitude * teacher, size)


@pytest.mark.filterwarnings("ignore:invalid value encountered")
@pytest.mark.parametrize("which", ["student", "teacher"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("size", [16, 10])
def test_a_bad_number_gives_no_quiet_loss(which, bad, size, device):
    tensors = dict(zip(("student", "teacher"), pair(3, 97, device), strict=True))
    tensors[which][1, 40] = bad
    for terms in ("both", "coarse", "fine"):
        actual = run(**tensors, size=size, terms=terms)
        assert not actual.loss.isfinite()
        assert not actual.grad[1, 40].isfinite()


@pytest.mark.parametrize("size", [16, 10])
def test_two_runs_give_the_same_bits(size, device):
    student, teacher = pair(2, 151, device)
    first, second = run(student, teacher, size), run(student, teacher, size)
    for one, other in zip(first, second, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("size", [16, 10])
def test_without_group_numbers(size, device):
    student, teacher = pair(2, 97, device)
    group, coef, partial = place_fwd(student, teacher, Options(size, with_groups=False))
    _, with_coef, with_partial = place_fwd(student, teacher, Options(size))
    assert group.shape == (0,)
    assert torch.equal(coef, with_coef)
    assert torch.equal(partial, with_partial)


@pytest.mark.parametrize("size", [0, 97, 200])
def test_a_group_size_out_of_range(size, device):
    student, teacher = pair(2, 97, device)
    with pytest.raises(ValueError, match=f"got {size}"):
        place_fwd(student, teacher, Options(size))


@pytest.mark.gpu
@pytest.mark.parametrize("rows, n, size", REAL)
def test_real_launches(rows, n, size):
    assert_agrees(*pair(rows, n, "cuda"), size)
