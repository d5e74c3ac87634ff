"""Drawn shapes, strides, dtypes, magnitudes and options against the oracle: see tests/fuzz.py."""

import pytest

from tests.conftest import IMPLS
from tests.fuzz import check, draw, impls_of

PART = 125


@pytest.mark.parametrize("part", range(4))
@pytest.mark.parametrize("impl", ["reference", *IMPLS])
def test_drawn_cases(impl, part, device):
    """500 cases, of those to a million; Triton's interpreter has short rows of fewer."""
    slow = impl == "triton"
    for number in range(250_000 * part, 250_000 * part + (PART // 5 if slow else PART)):
        case = draw(number, longest=60 if slow else 70_000)
        if impls_of(case, (impl,)):
            check(case.to(device), impl)


def test_the_hardest_are_among_them():
    """More groups than two bytes number, and numbers that are none."""
    cases = [draw(number) for number in range(1000)]
    assert any(case.student.numel() > 131_072 and not case.is_lift for case in cases)
    assert sum(not case.is_finite for case in cases) > 20
    assert {case.student.dim() for case in cases} == {2, 3, 4, 5, 6}
