"""Drawn shapes, strides, dtypes, magnitudes and options against the float64 reference."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from liftplace import lift_loss, place_loss

from .oracle import assert_matches

# The same cases in every run, so that a failure in CI can be repeated.
COMMON = {
    "deadline": None,
    "derandomize": True,
    "database": None,
    "suppress_health_check": list(HealthCheck),
}
FLOATS = [torch.float32, torch.bfloat16, torch.float16, torch.float64]


@st.composite
def cases(draw, largest: int, dtypes):
    """Keyword arguments of one call, tensors included."""
    batch, channels = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    spatial = draw(st.lists(st.integers(1, largest), min_size=1, max_size=2))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    kind = draw(st.sampled_from(["near", "far", "ties", "constant", "equal", "outlier"]))
    shape = (batch, channels, *spatial)
    student = torch.randn(shape, generator=generator)
    noise = torch.randn(shape, generator=generator)
    if kind == "ties":
        student = student.round(decimals=1)
    elif kind == "constant":
        student = student[:, :, :1].expand(shape).clone()
    teacher = {
        "near": 0.9 * student + 0.05 * noise,
        "far": noise + 2.0,
        "ties": student + 0.5 * noise.sign(),
        "constant": noise,
        "equal": student.clone(),
        "outlier": student + 0.1 * noise,
    }[kind]
    if kind == "outlier":
        teacher.flatten()[0] = 1e3
    magnitude = 10.0 ** draw(st.integers(-3, 3))
    dtype_s, dtype_t = draw(st.sampled_from(dtypes)), draw(st.sampled_from(dtypes))
    student, teacher = (
        (magnitude * x).clamp(-6e4, 6e4).to(dtype)  # float16 ends at 65,504
        for x, dtype in ((student, dtype_s), (teacher, dtype_t))
    )
    stride = draw(st.sampled_from(["contiguous", "transposed", "sliced"]))
    if stride == "transposed":
        student = student.transpose(-1, -2).contiguous().transpose(-1, -2)
    elif stride == "sliced":
        student, teacher = student[..., ::2], teacher[..., ::2]
    options = {
        "scope": draw(st.sampled_from(["channel", "sample"])),
        "norm": draw(st.sampled_from(["l1", "l2"])),
        "terms": draw(st.sampled_from(["both", "coarse", "fine"])),
        "weight": draw(st.sampled_from(["adaptive", 0.0, 0.5, 1.0])),
        "reduction": draw(st.sampled_from(["mean", "sum"])),
        "eps": draw(st.sampled_from([1e-7, 1e-5, 1e-3])),
    }
    return student, teacher, options


@pytest.mark.parametrize(
    "impl, largest, dtypes",
    [
        ("torch", 40, FLOATS),
        ("triton", 12, FLOATS[:3]),
        ("cuda", 40, FLOATS[:3]),
        ("native", 40, FLOATS[:3]),
    ],
    ids=["torch", "triton", "cuda", "native"],
)
def test_drawn_cases(impl, largest, dtypes, device):
    @settings(max_examples=150 if impl == "triton" else 400, **COMMON)
    @given(cases(largest, dtypes), st.integers(2, 40))
    def place(case, group_size):
        student, teacher, options = case
        student, teacher = student.to(device), teacher.to(device)
        assert_matches(place_loss, student, teacher, impl=impl, group_size=group_size, **options)

    @settings(max_examples=50 if impl == "triton" else 100, **COMMON)
    @given(cases(largest, dtypes))
    def lift(case):
        student, teacher, options = case
        student, teacher = student.to(device), teacher.to(device)
        assert_matches(lift_loss, student, teacher, impl=impl, **options)

    place()
    lift()
