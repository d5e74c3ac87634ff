"""What the group norms of a model can pass on: see `liftplace.families.norm_groups`."""

from dataclasses import dataclass

from torch import nn


@dataclass(frozen=True)
class Norms:
    """The group norms of a model.

    Attributes:
        groups: the most that one of them has.
        channels: the fewest channels a group.
        forgetting: how many have one channel a group and so forget every channel's mean.
        last_forgets: whether the last is one of those.
        count: how many norms there are.
    """

    groups: int
    channels: int
    forgetting: int
    last_forgets: bool
    count: int


def norms_of(model: nn.Module) -> Norms | None:
    """None for a model without group norms, as a transformer is."""
    norms = [module for module in model.modules() if isinstance(module, nn.GroupNorm)]
    if not norms:
        return None
    forgetting = [norm.num_channels == norm.num_groups for norm in norms]
    return Norms(
        groups=max(norm.num_groups for norm in norms),
        channels=min(norm.num_channels // norm.num_groups for norm in norms),
        forgetting=sum(forgetting),
        last_forgets=forgetting[-1],
        count=len(norms),
    )


def compare_norms(student: nn.Module, teacher: nn.Module) -> str | None:
    """The norm groups of both in a line; None where one has none."""
    new, old = norms_of(student), norms_of(teacher)
    if new is None or old is None:
        return None
    return (
        f"{old.groups} -> {new.groups}, at least {old.channels} -> {new.channels} channels a group"
    )


def norm_warning(student: nn.Module) -> str | None:
    """What a student whose last norm has one channel a group cannot do; None for any other."""
    norms = norms_of(student)
    if norms is None or not norms.last_forgets:
        return None
    return (
        f"{norms.forgetting} of the student's {norms.count} group norms, the last among them, have "
        "one channel a group and take out its mean, which a teacher that predicts noise needs at "
        "its noisiest timesteps: colours will drift"
    )
