"""LiftLoss and PlaceLoss: the losses as modules."""

from torch import Tensor, nn

from liftplace.functional import lift_loss, place_loss
from liftplace.reference import Fit


class _Loss(nn.Module):
    def __init__(self, **options):
        super().__init__()
        self.options = options

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={value!r}" for name, value in self.options.items())


class LiftLoss(_Loss):
    """`lift_loss` with its options set once.

    Takes every keyword of `lift_loss`; `forward(student, teacher)` returns what it returns.
    """

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor | tuple[Tensor, Fit]:
        return lift_loss(student, teacher, **self.options)


class PlaceLoss(_Loss):
    """`place_loss` with its options set once.

    Takes every keyword of `place_loss`; `forward(student, teacher)` returns what it returns.
    """

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor | tuple[Tensor, Fit]:
        return place_loss(student, teacher, **self.options)
