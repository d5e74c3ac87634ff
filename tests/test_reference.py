"""The specification itself: gradcheck, and numbers worked out by hand."""

import pytest
import torch

from liftplace import reference


@pytest.mark.parametrize("norm", ["l1", "l2"])
@pytest.mark.parametrize("terms", ["both", "coarse", "fine"])
@pytest.mark.parametrize("scope", ["channel", "sample"])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("group_size", [None, 4, 5])
def test_gradcheck(norm, terms, scope, reduction, group_size):
    """The fine term holds a and b constant; as they minimise it, that is its whole gradient."""
    student = torch.randn(2, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(2, 2, 3, 4, dtype=torch.float64)

    def loss(s):
        options = dict(norm=norm, terms=terms, scope=scope, reduction=reduction, weight=0.3)
        if group_size is None:
            return reference.lift_loss(s, teacher, eps=1e-14, **options)
        return reference.place_loss(s, teacher, eps=1e-14, group_size=group_size, **options)

    assert torch.autograd.gradcheck(loss, student)


def test_an_exact_line_is_all_coarse():
    student = torch.randn(2, 3, 50, dtype=torch.float64)
    loss, fit = reference.lift_loss(student, 2 * student + 0.25, eps=1e-14, return_fit=True)
    torch.testing.assert_close(fit.slope, torch.full((6, 1), 2.0, dtype=torch.float64))
    torch.testing.assert_close(fit.intercept, torch.full((6, 1), 0.25, dtype=torch.float64))
    torch.testing.assert_close(loss.item(), 1.25)
    assert fit.fine < 1e-25
    assert fit.weight == 0


def test_pure_noise_on_a_perfect_fit_is_all_fine():
    student = torch.tensor([[[-1.0, -1.0, 1.0, 1.0]]], dtype=torch.float64)
    teacher = student + torch.tensor([0.5, -0.5, 0.5, -0.5], dtype=torch.float64)
    loss, fit = reference.lift_loss(student, teacher, eps=1e-14, return_fit=True)
    torch.testing.assert_close(fit.weight.item(), 1.0)
    torch.testing.assert_close(loss.item(), 0.25)


def test_groups_by_hand():
    """Errors 9, 0, 4, 1, 0 in groups of two: elements (1, 4), (3, 2), and 0, which joins them."""
    student = torch.zeros(1, 1, 5, dtype=torch.float64)
    teacher = torch.tensor([[[3.0, 0.0, -2.0, 1.0, 0.0]]], dtype=torch.float64)
    fit = reference.linear_fit(student, teacher, group_size=2)
    assert fit.group.tolist() == [[[1, 0, 1, 1, 0]]]
    assert fit.slope.tolist() == [[0.0, 0.0]]
    torch.testing.assert_close(fit.intercept.tolist(), [[0.0, 2 / 3]])
    loss = reference.place_loss(student, teacher, group_size=2, weight=1.0)
    coarse = 1 + 3 * (2 / 3) / 5
    fine = ((1 - 2 / 3) ** 2 + (2 + 2 / 3) ** 2 + (3 - 2 / 3) ** 2) / 5
    torch.testing.assert_close(loss.item(), coarse + fine)


def test_adaptive_weight_starts_at_zero_and_fine_alone_at_one():
    student, teacher = torch.randn(2, 2, 30), 5 * torch.randn(2, 2, 30)
    for terms, expected in (("both", 0), ("coarse", 0), ("fine", 1)):
        _, fit = reference.lift_loss(student, teacher, terms=terms, return_fit=True)
        assert fit.weight == expected


def test_lift_is_place_in_one_group():
    student, teacher = torch.randn(2, 2, 30), torch.randn(2, 2, 30)
    one = reference.place_loss(student, teacher, num_groups=1)
    assert reference.lift_loss(student, teacher) == one
    assert reference.place_loss(student, teacher, group_size=30) == one


def test_channel_scope_does_not_see_other_channels():
    student, teacher = torch.randn(2, 2, 30), torch.randn(2, 2, 30)
    _, whole = reference.place_loss(student, teacher, return_fit=True)
    _, part = reference.place_loss(student[:, :1], teacher[:, :1], return_fit=True)
    assert torch.equal(whole.slope[::2], part.slope)
