"""The students that the demo compares: one that fails, and what mends it."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from liftplace.data.encoder import Encoder
from liftplace.demo.settings import DemoSettings
from liftplace.models.loading import LoadedModel
from liftplace.plots.colours import OKABE_ITO
from liftplace.students.build import build_student
from liftplace.students.config import PruneConfig
from liftplace.train.commands import trainer_spec
from liftplace.train.loop import new_trainers
from liftplace.train.trainer import ModelTrainer


@dataclass(frozen=True)
class Method:
    """A student and how it is trained."""

    name: str
    label: str
    colour: str
    dashes: str
    narrow_norms: bool = False  # one channel a norm group, instead of what liftplace prune chooses
    objective: dict[str, Any] = field(default_factory=dict)  # as the flags of liftplace distill


METHODS = (
    Method("narrow", "narrow norms, output KD", OKABE_ITO["black"], ":", True),
    Method("narrow_place", "narrow norms, LIFT+PLACE", OKABE_ITO["vermillion"], "-", True,
           {"loss": "place"}),
    Method("narrow_v", "narrow norms, output KD in v", OKABE_ITO["orange"], "--", True,
           {"kd_space": "v_prediction"}),
    Method("wide_no_kd", "wide norms, no KD", OKABE_ITO["green"], (0, (5, 1, 1, 1)),
           objective={"loss": "none"}),
    Method("wide", "wide norms, output KD", OKABE_ITO["blue"], "-."),
)  # fmt: skip
LABELS = {"teacher": "teacher"} | {method.name: method.label for method in METHODS}
MAPPED = "wide"  # the student whose maps are drawn, and that is loaded in the end


def for_cpu(model: nn.Module) -> nn.Module:
    """Channels last, the layout that convolutions on a CPU are fastest in."""
    return model.to(memory_format=torch.channels_last)


def new_student_trainers(
    teacher: LoadedModel, settings: DemoSettings, output_dir: str
) -> list[ModelTrainer]:
    """A trainer for each method, its student pruned from the teacher."""
    process, encoder = teacher.process(), Encoder(teacher)
    specs = []
    for method in METHODS:
        prune = PruneConfig(
            width=settings.width,
            norm_num_groups=settings.narrow_norm_num_groups if method.narrow_norms else None,
        )
        model, _ = build_student(prune, teacher)
        objective = dict(method.objective)
        if objective.get("loss") == "place":
            objective["group_size"] = settings.group_size
        config = settings.distill_config(output_dir, **objective)
        student = LoadedModel(for_cpu(model), None, "the demo's student")
        specs.append(trainer_spec(config, student, teacher, process, encoder, method.name))
    return new_trainers(specs, settings.distill_config(output_dir))
