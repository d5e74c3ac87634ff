"""The students that the demo compares: one that fails, and what mends it."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from liftplace.data.encoder import Encoder
from liftplace.demo.settings import DemoSettings
from liftplace.models.loading import LoadedModel
from liftplace.plots.axes import OKABE_ITO
from liftplace.students.build import build_student
from liftplace.students.config import PruneConfig
from liftplace.train.commands import trainer_spec
from liftplace.train.setup import new_trainers
from liftplace.train.trainer import ModelTrainer


@dataclass(frozen=True)
class Method:
    """A student and how it is trained."""

    name: str
    label: str
    colour: str
    dashes: str
    narrow_norms: bool = False  # one channel a norm group, and not as liftplace prune chooses
    objective: dict[str, Any] = field(default_factory=dict)  # as the flags of liftplace distill


_BLACK, _BLUE = OKABE_ITO["black"], OKABE_ITO["blue"]
_RED, _ORANGE, _GREEN = OKABE_ITO["vermillion"], OKABE_ITO["orange"], OKABE_ITO["green"]
_IN_V = {"kd_space": "v_prediction"}
_SHORT_DASHES = (0, (5, 1, 1, 1))
METHODS = (
    Method("narrow", "narrow norms, output KD", _BLACK, ":", True),
    Method("narrow_place", "narrow norms, LIFT+PLACE", _RED, "-", True, {"loss": "place"}),
    Method("narrow_v", "narrow norms, output KD in v", _ORANGE, "--", True, _IN_V),
    Method("wide_no_kd", "wide norms, no KD", _GREEN, _SHORT_DASHES, objective={"loss": "none"}),
    Method("wide", "wide norms, output KD", _BLUE, "-."),
)
LABELS = {"teacher": "teacher"} | {method.name: method.label for method in METHODS}
MAPPED = "wide"  # the student that maps.png shows, and that the last lines load


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
