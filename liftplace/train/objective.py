"""What a student minimises: the task loss and the distillation loss."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from liftplace import lift_loss, place_loss


@dataclass(frozen=True)
class Objective:
    """task_weight * ||student - target||^2 + kd_weight * D(student, teacher).

    D is 0 ("none"), the squared error ("mse"), `lift_loss` or `place_loss`; the options of the
    last two are passed on. `reduction` holds for both terms: the mean over elements, or the sum
    over a sample, averaged over the batch. `weight` may also be "linear" or "cosine": a ramp from
    0 to 1 over the run.
    """

    loss: str = "place"
    task_weight: float = 1.0
    kd_weight: float = 1.0
    group_size: int | None = None
    num_groups: int | None = None
    scope: str = "channel"
    norm: str = "l1"
    weight: str | float = "adaptive"
    terms: str = "both"
    reduction: str = "mean"
    eps: float = 1e-7
    impl: str = "auto"

    @property
    def needs_teacher(self) -> bool:
        return self.loss != "none"

    def __call__(
        self,
        student: Tensor,
        target: Tensor,
        teacher: Tensor | None = None,
        *,
        sample_weight: Tensor | None = None,
        progress: float = 0.0,
        process_group: torch.distributed.ProcessGroup | None = None,
    ) -> dict[str, Tensor]:
        """The terms by name, 0-d float32 tensors; "loss" is the one to minimise.

        Args:
            student, target, teacher: (batch, channels, height, width). The last two without grad.
            sample_weight: (batch,), of each sample in the task loss; 1 by default. The distillation
                loss has none: its fits are over whole rows.
            progress: how much of the run is over, in [0, 1]; for the ramps.
            process_group: ranks that share the batch.

        Returns:
            "loss" and "task"; with a teacher "kd"; with LIFT or PLACE "coarse", "fine", "weight".
        """
        task = self._squared_error(student, target, sample_weight)
        if not self.needs_teacher:
            return {"loss": self.task_weight * task, "task": task.detach()}
        if self.loss == "mse":
            kd, parts = self._squared_error(student, teacher), {}
        else:
            kd, parts = self._fitted(student, teacher, progress, process_group)
        total = self.task_weight * task + self.kd_weight * kd
        return {"loss": total, "task": task.detach(), "kd": kd.detach(), **parts}

    def _squared_error(
        self, student: Tensor, other: Tensor, sample_weight: Tensor | None = None
    ) -> Tensor:
        error = (student.float() - other.float()).square()
        if sample_weight is not None:
            error = error.flatten(1).mean(1) * sample_weight
        mean = error.mean()
        return mean * student[0].numel() if self.reduction == "sum" else mean

    def _fitted(self, student, teacher, progress, process_group) -> tuple[Tensor, dict]:
        options = {
            "scope": self.scope, "norm": self.norm, "weight": ramp(self.weight, progress),
            "terms": self.terms, "reduction": self.reduction, "eps": self.eps, "impl": self.impl,
            "process_group": process_group, "return_fit": True,
        }  # fmt: skip
        if self.loss == "lift":
            kd, fit = lift_loss(student, teacher, **options)
        else:
            groups = {"group_size": self.group_size, "num_groups": self.num_groups}
            kd, fit = place_loss(student, teacher, **groups, **options)
        return kd, {"coarse": fit.coarse, "fine": fit.fine, "weight": fit.weight}


def ramp(weight: str | float, progress: float) -> str | float:
    """The weight of the fine term after this much of the run."""
    if weight == "linear":
        return progress
    if weight == "cosine":
        return (1 - math.cos(math.pi * progress)) / 2
    return weight
