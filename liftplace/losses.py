"""LiftLoss and PlaceLoss: the losses as modules."""

import torch
from torch import Tensor, nn

from liftplace._arguments import LossArguments, check_choice, check_groups, check_options
from liftplace._dispatch import check_impl
from liftplace.functional import lift_loss, place_loss
from liftplace.reference import Fit


class LiftLoss(nn.Module):
    """`lift_loss` with its options set once; `forward(student, teacher)` returns what it returns.

    Args and errors are those of `lift_loss`; bad options already fail here.
    """

    def __init__(
        self,
        *,
        scope: str = "channel",
        norm: str = "l1",
        weight: str | float | Tensor = "adaptive",
        terms: str = "both",
        reduction: str = "mean",
        eps: float = 1e-7,
        process_group: torch.distributed.ProcessGroup | None = None,
        impl: str = "auto",
        return_fit: bool = False,
    ):
        super().__init__()
        arguments = LossArguments(scope, norm, weight, terms, reduction, eps, process_group)
        check_choice("scope", scope)
        check_options(arguments)
        check_impl(impl)
        self.options = {**arguments._asdict(), "impl": impl, "return_fit": return_fit}

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor | tuple[Tensor, Fit]:
        return lift_loss(student, teacher, **self.options)

    def extra_repr(self) -> str:
        return _changed(self.options, lift_loss)


class PlaceLoss(LiftLoss):
    """`place_loss` with its options set once; `forward(student, teacher)` returns what it returns.

    Args and errors are those of `place_loss`; bad options already fail here.
    """

    def __init__(
        self,
        *,
        group_size: int | None = None,
        num_groups: int | None = None,
        scope: str = "channel",
        norm: str = "l1",
        weight: str | float | Tensor = "adaptive",
        terms: str = "both",
        reduction: str = "mean",
        eps: float = 1e-7,
        process_group: torch.distributed.ProcessGroup | None = None,
        impl: str = "auto",
        return_fit: bool = False,
    ):
        arguments = LossArguments(scope, norm, weight, terms, reduction, eps, process_group)
        super().__init__(**arguments._asdict(), impl=impl, return_fit=return_fit)
        check_groups(group_size, num_groups)
        self.options |= {"group_size": group_size, "num_groups": num_groups}

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor | tuple[Tensor, Fit]:
        return place_loss(student, teacher, **self.options)

    def extra_repr(self) -> str:
        return _changed(self.options, place_loss)


def _changed(options: dict, function) -> str:
    """The options that differ from function's defaults."""
    defaults = function.__kwdefaults__
    return ", ".join(f"{k}={v!r}" for k, v in options.items() if repr(v) != repr(defaults[k]))
