import pytest

from liftplace.families.norm_groups import choose_groups, least_channels


@pytest.mark.parametrize(
    ("channels", "groups", "least"),
    [
        ((128, 512), 32, 4),
        ((320, 640), 32, 4),
        ((24, 48, 88), 8, 3),
        ((16, 32), 8, 2),
        ((32, 64), 32, 4),
        ((16,), 1, 4),
    ],
)
def test_a_student_has_four_channels_a_group_or_the_two_or_three_of_its_teacher(
    channels, groups, least
):
    assert least_channels(channels, groups) == least


@pytest.mark.parametrize(
    ("channels", "most", "least", "groups"),
    [
        ((32, 64), 32, 4, 8),
        ((32, 64), 4, 4, 4),  # never more than asked for
        ((8, 8, 8), 8, 3, 2),
        ((25, 50), 32, 4, 5),
        ((25, 51), 32, 4, 1),
        ((3, 6), 32, 4, 1),  # fewer than four in all
        ((6, 6), 8, 4, 1),
    ],
)
def test_as_many_groups_as_leave_enough_channels_in_each(channels, most, least, groups):
    assert choose_groups(channels, most, least) == groups
