"""How many groups the norms of a narrow U-Net have.

A group norm takes out the mean and scale of each group. With one channel a group it takes them out
of every channel, and a U-Net of such norms cannot pass the mean of its input on; with a few
channels a group their differences carry it. The number of groups adds no weight and takes no time.
"""

from collections.abc import Sequence

LEAST = 4  # as diffusers' own default for a U-Net's last norm, min(channels // 4, 32) groups


def least_channels(channels: Sequence[int], groups: int) -> int:
    """How many channels a group a student shall have: four, or two or three where that is what its
    teacher has."""
    least = min(channels) // groups
    return least if 1 < least < LEAST else LEAST


def choose_groups(channels: Sequence[int], most: int, least: int) -> int:
    """The most groups, up to `most`, that divide all of these channels and leave `least` or more in
    each; one group where no number does."""
    return max(
        (
            groups
            for groups in range(1, most + 1)
            if min(channels) // groups >= least and not any(each % groups for each in channels)
        ),
        default=1,
    )


def student_groups(channels: Sequence[int], teachers: Sequence[int], groups: int) -> int:
    """The groups of a student of these channels, whose teacher has `teachers` in so many groups."""
    return choose_groups(channels, groups, least_channels(teachers, groups))
