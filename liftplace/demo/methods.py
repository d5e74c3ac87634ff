"""The ways of training that the demo compares."""

import time
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from liftplace.demo.settings import DemoSettings
from liftplace.models.shrink import shrink
from liftplace.plots.colours import OKABE_ITO
from liftplace.train.loop import new_trainers
from liftplace.train.objective import Objective
from liftplace.train.run_config import RunConfig
from liftplace.train.trainer import ModelTrainer, TrainerSpec


@dataclass(frozen=True)
class Method:
    """One way of training, by the name of its distillation loss."""

    loss: str  # as `liftplace distill --loss`
    label: str
    colour: str
    dashes: str


METHODS = (
    Method("none", "no KD", OKABE_ITO["black"], ":"),
    Method("mse", "output KD", OKABE_ITO["blue"], "-."),
    Method("lift", "LIFT", OKABE_ITO["orange"], "--"),
    Method("place", "LIFT+PLACE", OKABE_ITO["vermillion"], "-"),
)
LABELS = {"teacher": "teacher"} | {method.loss: method.label for method in METHODS}
MAPPED = "place"  # whose maps are drawn


class TimedTrainer(ModelTrainer):
    """A trainer that adds up its own seconds, since several train side by side."""

    seconds = 0.0

    def accumulate(self, *arguments, **options) -> None:
        start = time.perf_counter()
        super().accumulate(*arguments, **options)
        self.seconds += time.perf_counter() - start

    def update(self, step: int) -> dict[str, Tensor]:
        start = time.perf_counter()
        metrics = super().update(step)
        self.seconds += time.perf_counter() - start
        return metrics


def for_cpu(model: nn.Module) -> nn.Module:
    """Channels last, the layout that convolutions on a CPU are fastest in."""
    return model.to(memory_format=torch.channels_last)


def new_timed_trainers(
    teacher: nn.Module, settings: DemoSettings, config: RunConfig
) -> list[TimedTrainer]:
    """One trainer a method: the same student, the same first weights, the same optimiser."""
    specs = [
        TrainerSpec(
            for_cpu(
                shrink(
                    teacher.config,
                    settings.student_block_out_channels,
                    norm_num_groups=settings.student_norm_num_groups,
                    seed=settings.seed,
                )
            ),
            Objective(
                loss=method.loss,
                task_weight=settings.task_weight,
                kd_weight=settings.kd_weight,
                group_size=settings.group_size if method.loss == "place" else None,
            ),
            config,
            name=method.loss,
        )
        for method in METHODS
    ]
    return new_trainers(specs, config, TimedTrainer)
