"""Feature distillation: hidden states of the student's blocks against those of the teacher's.

FitNets (Romero et al., arXiv 1412.6550, section 2.2) with 1x1 adapters where the shapes differ.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from liftplace.common.errors import UsageError
from liftplace.families import family_of_model
from liftplace.families.family import Conditions
from liftplace.train.hooked_model import HookedModel, ModelOutput

BY_POSITION = "by_position"


class Pair(NamedTuple):
    """A block of the student and the block of the teacher that it is to imitate."""

    student: str
    teacher: str

    def __str__(self) -> str:
        return f"{self.student}:{self.teacher}"


@dataclass(frozen=True)
class FeatureMatch:
    """Which blocks are compared, and what brings the student's to the teacher's channels."""

    pairs: tuple[Pair, ...] = ()
    adapters: nn.ModuleList = field(default_factory=nn.ModuleList)  # one a pair


NO_FEATURES = FeatureMatch()


class StudentWithAdapters(HookedModel):
    """A student and its adapters as one module, so that they are distributed, stepped and saved
    together."""

    def __init__(self, student: nn.Module, match: FeatureMatch = NO_FEATURES) -> None:
        super().__init__(student, [pair.student for pair in match.pairs])
        self.pairs = match.pairs
        self.adapters = match.adapters
        # What accelerate's transformer policy for FSDP shards by, unless it is set otherwise.
        blocks = self.family.blocks(student).values()
        self._no_split_modules = sorted({type(block).__name__ for block in blocks})

    def forward(self, noisy: Tensor, timesteps: Tensor, conditions: Conditions) -> ModelOutput:
        output = super().forward(noisy, timesteps, conditions)
        features = {
            pair: adapter(output.features[pair.student])
            for pair, adapter in zip(self.pairs, self.adapters, strict=True)
        }
        return output._replace(features=features)


def match_features(
    student: nn.Module, teacher: nn.Module, pairs: Sequence[Pair], *, seed: int, always: bool
) -> FeatureMatch:
    """The adapters of these pairs: a 1x1 convolution of maps or a linear map of tokens where the
    channels differ, nothing where they agree.

    Args:
        seed: of the adapters' weights.
        always: an adapter also where the channels agree.

    Raises:
        UsageError: a block's name is not one, or one has maps and the other tokens.
    """
    student_shapes = block_shapes(student, [pair.student for pair in pairs])
    teacher_shapes = block_shapes(teacher, [pair.teacher for pair in pairs])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        adapters = [
            _adapter(pair, student_shapes[pair.student], teacher_shapes[pair.teacher], always)
            for pair in pairs
        ]
    return FeatureMatch(tuple(pairs), nn.ModuleList(adapters))


def _adapter(pair: Pair, student: torch.Size, teacher: torch.Size, always: bool) -> nn.Module:
    if len(student) != len(teacher):
        raise UsageError(
            f"--feature_layers {pair}: the student's block gives {tuple(student)} and the "
            f"teacher's {tuple(teacher)}; both must be maps or both tokens"
        )
    of_maps = len(student) == 4
    channels = (student[1], teacher[1]) if of_maps else (student[2], teacher[2])
    if channels[0] == channels[1] and not always:
        return nn.Identity()
    return nn.Conv2d(*channels, kernel_size=1) if of_maps else nn.Linear(*channels)


def block_shapes(model: nn.Module, blocks: Sequence[str]) -> dict[str, torch.Size]:
    """The shapes of these blocks' hidden states for one sample; computes nothing.

    Raises:
        UsageError: the model has no such block.
    """
    family = family_of_model(model)
    for name in blocks:
        if name not in family.blocks(model):
            raise UsageError(
                f"--feature_layers: the {family.class_name} has no block {name}; it has "
                f"{', '.join(family.blocks(model))}"
            )
    hooked = HookedModel(model, blocks)
    noisy, timesteps, conditions = family.example(model.config)
    state = {**dict(hooked.named_parameters()), **dict(hooked.named_buffers())}
    inputs = (noisy.to("meta"), timesteps.to("meta"), _meta(conditions))
    try:
        with torch.no_grad():
            output = functional_call(hooked, _meta(state), inputs)
    finally:
        hooked.unhook()
    return {name: hidden.shape for name, hidden in output.features.items()}


def _meta(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.to("meta") for name, tensor in tensors.items()}


def choose_pairs(
    student: nn.Module,
    teacher: nn.Module,
    chosen: Sequence[str] = (),
    layer_map: Mapping[str, str] | None = None,
) -> tuple[Pair, ...]:
    """The pairs of blocks to compare.

    Args:
        chosen: "block" or "student's block:teacher's block", or BY_POSITION alone; nothing means
            `layer_map`, or by position where there is none.
        layer_map: the teacher's block by the student's.

    Raises:
        UsageError: the teacher has no block of that kind.
    """
    if chosen and tuple(chosen) != (BY_POSITION,):
        halves = [text.split(":", 1) for text in chosen]
        return tuple(dict.fromkeys(Pair(half[0], half[-1]) for half in halves))
    blocks = list(family_of_model(student).blocks(student))
    mapped = [Pair(name, layer_map[name]) for name in blocks if name in (layer_map or {})]
    if mapped and not chosen:
        return tuple(mapped)
    return by_position(blocks, list(family_of_model(teacher).blocks(teacher)))


def by_position(student: Sequence[str], teacher: Sequence[str]) -> tuple[Pair, ...]:
    """Each of the student's blocks with one of the teacher's of the same kind: of n, the i-th with
    the last of the i-th of n equal parts, in whose place it stands."""
    pairs = []
    for name in student:
        same = [other for other in student if _kind(other) == _kind(name)]
        candidates = [other for other in teacher if _kind(other) == _kind(name)]
        if not candidates:
            raise UsageError(
                f"the teacher has no block like the student's {name}: name the pairs with "
                "--feature_layers"
            )
        share = (same.index(name) + 1) / len(same)
        pairs.append(Pair(name, candidates[max(math.ceil(share * len(candidates)) - 1, 0)]))
    return tuple(pairs)


def _kind(block: str) -> str:
    return block.rstrip("0123456789")


def feature_loss(
    pairs: Iterable[tuple[Tensor, Tensor]], *, reduction: str = "mean", mask: float | None = None
) -> Tensor:
    """The squared error of (student's, teacher's) hidden states, summed over the pairs.

    Args:
        pairs: maps (batch, channels, height, width) or tokens (batch, tokens, channels). Where
            only height and width differ, the student's are resized to the teacher's.
        reduction: the mean over the elements of a sample, or their sum; averaged over the batch.
        mask: leave out the elements where the student's or the teacher's value is further than
            `mask` standard deviations of the sample from its mean: Masked RepKD (TinyFusion,
            arXiv 2412.01199, section 4.4), for the massive activations of transformers.
    """
    total = None
    for student, teacher in pairs:
        student, teacher = resize(student.float(), teacher.shape), teacher.float()
        error = (student - teacher).square().flatten(1)
        kept = None if mask is None else _moderate(student, mask) & _moderate(teacher, mask)
        if kept is None:
            one = error.sum(1) if reduction == "sum" else error.mean(1)
        else:
            one = torch.where(kept, error, 0).sum(1)
            if reduction == "mean":
                one = one / kept.sum(1).clamp(min=1)
        total = one.mean() if total is None else total + one.mean()
    return total


def _moderate(hidden: Tensor, limit: float) -> Tensor:
    values = hidden.detach().flatten(1)
    deviation, mean = torch.std_mean(values, dim=1, keepdim=True)
    return (values - mean).abs() <= limit * deviation


def resize(hidden: Tensor, shape: torch.Size) -> Tensor:
    """A hidden state at the height and width, or the square number of tokens, of another."""
    if hidden.dim() == 4:
        if hidden.shape[2:] == shape[2:]:
            return hidden
        return F.interpolate(hidden, tuple(shape[2:]), mode="area")
    if hidden.shape[1] == shape[1]:
        return hidden
    side, other = math.isqrt(hidden.shape[1]), math.isqrt(shape[1])
    maps = hidden.transpose(1, 2).unflatten(2, (side, side))
    return F.interpolate(maps, (other, other), mode="area").flatten(2).transpose(1, 2)
