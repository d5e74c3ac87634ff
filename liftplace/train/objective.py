"""What a student minimises: a weighted sum of task, output and feature distillation losses."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from liftplace import lift_loss, place_loss
from liftplace.common.errors import UsageError
from liftplace.models.noise import FLOW, NoiseProcess, NoisyBatch
from liftplace.train.features import feature_loss

HUBER = 0.1  # where the pull of that norm begins to fade
WEIGHTED = ("task", "kd", "mse", "moment", "feature")  # terms with a weight and a schedule of it


@dataclass(frozen=True)
class Objective:
    """task_weight * (E + variance_weight * V) + kd_weight * D + mse_weight * S
    + moment_weight * M + feature_weight * F.

    E is the squared error of the student to the target, V the variational term of a learned
    variance, and F `feature_loss`. D, of the student to the teacher, is 0 ("none"), the squared
    error ("mse"), `lift_loss` or `place_loss`; the options of the last two are passed on. S is the
    squared error to the teacher once more, for a sum with one of those, and M `moment_loss`.
    `reduction` holds for all terms: the mean over elements, or the sum over a sample, averaged over
    the batch. `weight` may also be "linear" or "cosine": a ramp from 0 to 1 over the run. Each of
    the five weights may go to its `_end` over the run, by its `_schedule`. In D a sample below the
    timestep `kd_min_timestep` counts as if the student's output were the teacher's.
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
    variance_weight: float = 1.0
    kd_min_timestep: float = 0.0
    mse_weight: float = 0.0
    moment_weight: float = 0.0
    moment_norm: str = "l1"
    moments: str = "mean"
    feature_weight: float = 0.0
    feature_mask: float | None = None
    task_weight_schedule: str = "constant"
    task_weight_end: float = 0.0
    kd_weight_schedule: str = "constant"
    kd_weight_end: float = 0.0
    mse_weight_schedule: str = "constant"
    mse_weight_end: float = 0.0
    moment_weight_schedule: str = "constant"
    moment_weight_end: float = 0.0
    feature_weight_schedule: str = "constant"
    feature_weight_end: float = 0.0

    def has(self, term: str) -> bool:
        """Whether "mse", "moment" or "feature" ever has a weight."""
        return any(self.weight_of(term, progress) > 0 for progress in (0, 1))

    @property
    def needs_teacher(self) -> bool:
        return self.loss != "none" or any(map(self.has, ("mse", "moment", "feature")))

    @property
    def is_scheduled(self) -> bool:
        """Whether the loss depends on how much of the run is over."""
        schedules = {getattr(self, f"{term}_weight_schedule") for term in WEIGHTED}
        return self.weight in ("linear", "cosine") or schedules != {"constant"}

    @property
    def summands(self) -> tuple[str, ...]:
        """The terms that the loss is the sum of, as "weighted/" has them."""
        halves = ("coarse", "fine") if self.terms == "both" else (self.terms,)
        of_teacher = {"none": (), "mse": ("kd",)}.get(self.loss, halves)
        added = (term for term in ("mse", "moment", "feature") if self.has(term))
        return ("task", *of_teacher, *added)

    def weight_of(self, term: str, progress: float | Tensor) -> float | Tensor:
        """The weight of one of `WEIGHTED` after this much of the run."""
        start, schedule, end = (
            getattr(self, f"{term}_weight{part}") for part in ("", "_schedule", "_end")
        )
        if schedule == "constant":
            return start
        return start + (end - start) * ramp(schedule, progress)

    def __call__(
        self,
        student: Tensor,
        target: Tensor,
        teacher: Tensor | None = None,
        *,
        variance: Tensor | None = None,
        features: Iterable[tuple[Tensor, Tensor]] = (),
        sample_weight: Tensor | None = None,
        kd_sample_weight: Tensor | None = None,
        timesteps: Tensor | None = None,
        progress: float | Tensor = 0.0,
        process_group: torch.distributed.ProcessGroup | None = None,
        only: str | None = None,
    ) -> dict[str, Tensor]:
        """The terms by name, 0-d float32 tensors; "loss" is the one to minimise.

        Args:
            student, target, teacher: (batch, channels, height, width). The last two without grad.
            variance: (batch,), the variational term of each sample, a mean over its elements.
            features: the hidden states of the student and of the teacher, pair by pair.
            sample_weight: (batch,), of each sample in the task loss; 1 by default. The distillation
                loss has none: its fits are over whole rows.
            kd_sample_weight: (batch,), of each sample's squared error to the teacher in D: both
                outputs are multiplied by its root, which leaves slopes as they are.
            timesteps: (batch,), of each sample; read where `kd_min_timestep` is not 0.
            progress: how much of the run is over, in [0, 1], also as a 0-d tensor; for the
                schedules.
            process_group: ranks that share the batch.
            only: a term that has a "weighted/": "loss" is then that one alone, with a gradient of 0
                for whatever only the other terms depend on.

        Returns:
            "loss" and "task"; of a learned variance "variance"; with output distillation "kd", by
            LIFT or PLACE also "coarse", "fine" and "weight"; with those weights "mse", "moment"
            and "feature". All but "loss" are without weights and schedules. And what "loss" is the
            sum of, each with all that it is multiplied by: "weighted/task" (the variational term in
            it), "weighted/kd" or "weighted/coarse" and "weighted/fine", "weighted/mse",
            "weighted/moment", "weighted/feature".

        Raises:
            UsageError: `kd_min_timestep` is set and there are no timesteps.
        """
        task = self._squared_error(student, target, sample_weight)
        metrics, fitted = {"task": task}, {}
        if variance is not None:
            metrics["variance"] = variance.mean() * self._elements(student)
            task = task + self.variance_weight * metrics["variance"]
        summands = {"task": self.weight_of("task", progress) * task}
        compared = self._compared(student, teacher, timesteps, kd_sample_weight)
        if self.loss == "mse":
            metrics["kd"] = self._squared_error(*compared)
        elif self.loss != "none":
            metrics["kd"], fitted = self._fitted(*compared, progress, process_group=process_group)
            metrics |= fitted
        kd_weight = self.weight_of("kd", progress)
        if "kd" in metrics:
            summands["kd"] = kd_weight * metrics["kd"]
        if self.has("mse"):
            metrics["mse"] = self._squared_error(student, teacher)
            summands["mse"] = self.weight_of("mse", progress) * metrics["mse"]
        if self.has("moment"):
            moment = moment_loss(student, teacher, norm=self.moment_norm, moments=self.moments)
            metrics["moment"] = moment * self._elements(student)
            summands["moment"] = self.weight_of("moment", progress) * metrics["moment"]
        if self.has("feature"):
            feature = feature_loss(features, reduction=self.reduction, mask=self.feature_mask)
            metrics["feature"] = feature
            summands["feature"] = self.weight_of("feature", progress) * feature
        loss = total = sum(summands.values())
        if fitted:
            del summands["kd"]
            summands |= self._halves(fitted, kd_weight * self._elements(student))
        if only is not None:
            if only in ("coarse", "fine"):  # the op gives them without a gradient
                options = {"terms": only, "weight": fitted["weight"]}
                summands[only] = kd_weight * self._fitted(*compared, progress, **options)[0]
            loss = summands[only] + 0 * total
        metrics |= {f"weighted/{name}": value for name, value in summands.items()}
        return {"loss": loss} | {name: value.detach() for name, value in metrics.items()}

    def _compared(
        self,
        student: Tensor,
        teacher: Tensor | None,
        timesteps: Tensor | None,
        sample_weight: Tensor | None,
    ) -> tuple[Tensor, Tensor | None]:
        """The outputs of student and teacher as D compares them.

        Where the timestep is too low for D, the student's is the teacher's: the batch keeps its
        size, and nothing waits for the device.
        """
        if self.loss == "none":
            return student, teacher
        if self.kd_min_timestep > 0:
            if timesteps is None:
                raise UsageError(f"kd_min_timestep is {self.kd_min_timestep:g}: give timesteps too")
            noisy = (timesteps >= self.kd_min_timestep).view(-1, *[1] * (student.ndim - 1))
            student = torch.where(noisy, student, teacher)
        if sample_weight is not None:
            student, teacher = (_scaled(output, sample_weight) for output in (student, teacher))
        return student, teacher

    def _squared_error(
        self, student: Tensor, other: Tensor, sample_weight: Tensor | None = None
    ) -> Tensor:
        error = (student.float() - other.float()).square()
        if sample_weight is not None:
            error = error.flatten(1).mean(1) * sample_weight
        return error.mean() * self._elements(student)

    def _elements(self, student: Tensor) -> int:
        """What `reduction` multiplies a mean over the elements by."""
        return student[0].numel() if self.reduction == "sum" else 1

    def _halves(self, fitted: dict[str, Tensor], factor: float) -> dict[str, Tensor]:
        """The two summands of LIFT or PLACE, or the one that `terms` leaves."""
        halves = {"coarse": fitted["coarse"], "fine": fitted["weight"] * fitted["fine"]}
        return {name: factor * half for name, half in halves.items() if name in self.summands}

    def _fitted(
        self, student: Tensor, teacher: Tensor, progress: float | Tensor, **changes
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """LIFT or PLACE, and its coarse term, fine term and weight."""
        names = ("scope", "norm", "terms", "reduction", "eps", "impl")
        options = {name: getattr(self, name) for name in names}
        options |= {"weight": ramp(self.weight, progress), "return_fit": True} | changes
        if self.loss == "lift":
            kd, fit = lift_loss(student, teacher, **options)
        else:
            groups = {"group_size": self.group_size, "num_groups": self.num_groups}
            kd, fit = place_loss(student, teacher, **groups, **options)
        return kd, {"coarse": fit.coarse, "fine": fit.fine, "weight": fit.weight}


def moment_loss(
    student: Tensor, teacher: Tensor, *, norm: str = "l1", moments: str = "mean"
) -> Tensor:
    """How far the channels' means of the student's output are from the teacher's.

        phi(student.mean((2, 3)) - teacher.mean((2, 3))).mean()

    Args:
        student, teacher: (batch, channels, height, width), any floating dtype; teacher without
            grad.
        norm: phi, "l1" (absolute value), "l2" (square) or "huber" (a square up to 0.1, then
            linear with slope 1: its pull fades where the means are close).
        moments: "mean", or "mean_std" to add the same of the channels' standard deviations.

    Returns:
        0-d float32.
    """
    s, t = (x.float().flatten(2) for x in (student, teacher))
    loss = _phi(s.mean(2) - t.mean(2), norm)
    if moments == "mean_std":
        loss = loss + _phi(_std(s) - _std(t), norm)
    return loss.mean()


def _std(rows: Tensor) -> Tensor:
    """With a gradient of 0, not NaN, where a row is constant."""
    return (rows.var(2, correction=0) + 1e-12).sqrt()


def _phi(gap: Tensor, norm: str) -> Tensor:
    if norm == "huber":
        return torch.nn.functional.smooth_l1_loss(
            gap, torch.zeros_like(gap), beta=HUBER, reduction="none"
        )
    return gap.abs() if norm == "l1" else gap.square()


def _scaled(output: Tensor, sample_weight: Tensor) -> Tensor:
    return output * sample_weight.sqrt().to(output.dtype).view(-1, *[1] * (output.ndim - 1))


def ramp(weight: str | float, progress: float | Tensor) -> str | float | Tensor:
    """From 0 to 1, "linear" or "cosine", after this much of the run; other weights as they are."""
    if weight == "linear":
        return progress
    if weight == "cosine":
        cos = torch.cos if isinstance(progress, Tensor) else math.cos
        return (1 - cos(math.pi * progress)) / 2
    return weight


class SpaceWeight:
    """A sample's squared error in another space, over that in the space of the prediction.

    At a fixed noisy input the errors are multiples of each other: the clean image's is
    sigma / alpha times the noise's and sigma times that of v, where alpha^2 = abar and
    sigma^2 = 1 - abar. In flow matching, whose sigma is the noise's share, it is sigma times that
    of the velocity.

    Args:
        process: what the model predicts, and its alphas.
        space: "epsilon", "v_prediction" or "sample".
        most: the largest weight: from noise to image it goes to tens of thousands.

    Raises:
        UsageError: a space that flow matching does not have.
    """

    def __init__(self, process: NoiseProcess, space: str, most: float) -> None:
        self._most = most
        self._steps = process.scheduler.config.num_train_timesteps
        self._table = None  # (timesteps,), float32; None: by sigma
        if process.prediction_type == FLOW:
            if space != "sample":
                raise UsageError(
                    f"kd_space {space} is of diffusion, and the teacher is of flow matching: "
                    "give sample or prediction"
                )
            return
        abar = process.scheduler.alphas_cumprod.double()
        to_sample = {
            "epsilon": (1 - abar) / abar,
            "v_prediction": 1 - abar,
            "sample": torch.ones_like(abar),
        }
        weights = to_sample[process.prediction_type] / to_sample[space]
        self._table = weights.clamp(max=most).float()

    def __call__(self, batch: NoisyBatch) -> Tensor:
        """(batch,), float32, on the batch's device."""
        if self._table is None:
            return (batch.timesteps.float() / self._steps).square().clamp(max=self._most)
        self._table = self._table.to(batch.timesteps.device)  # a copy the first time only
        return self._table[batch.timesteps]
