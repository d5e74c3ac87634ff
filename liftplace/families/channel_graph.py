"""Channel groups: which channels stay, the same ones in every weight that reads or writes them.

A hidden tensor's channels are a *group*. Weights write it on one axis and read it on another, and
a residual sum makes its terms one group. A `ChannelGraph` says which group each axis of each weight
runs over. Keeping the same indices along all axes of a group then gives a smaller model that
computes with the channels that stay.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

Segment = str | int


@dataclass
class ChannelGroup:
    size: int
    kept: int
    unit: int
    fixed: Tensor | None
    boundaries: set[int] = field(default_factory=set)


class ChannelGraph:
    """The channel groups of a model, and which axes of its weights run over each."""

    def __init__(self) -> None:
        self.groups: dict[str, ChannelGroup] = {}
        self.axes: dict[tuple[str, int], tuple[Segment, ...]] = {}
        self.factors: dict[str, float] = {}

    def group(
        self,
        name: str,
        size: int,
        kept: int,
        *,
        unit: int = 1,
        fixed: Tensor | Sequence[int] | None = None,
        boundaries: Sequence[int] = (),
    ) -> str:
        """Declare a group; returns its name.

        Args:
            size: channels of the teacher.
            kept: channels of the student.
            unit: so many consecutive channels stay or go together, as those of a head.
            fixed: the indices that stay, (kept,), where the weights have no say in it.
            boundaries: positions that must stay in proportion: between two of them the same share
                stays, as in the groups of a norm.

        Raises:
            ValueError: numbers that do not go together.
        """
        if name in self.groups:
            raise ValueError(f"group {name} is declared twice")
        if not 0 < kept <= size or size % unit or kept % unit:
            raise ValueError(f"group {name} cannot keep {kept} of {size} in units of {unit}")
        if fixed is not None:
            fixed = torch.as_tensor(fixed, dtype=torch.long)
            if len(fixed) != kept:
                raise ValueError(f"group {name} keeps {kept}, but {len(fixed)} indices are fixed")
        self.groups[name] = ChannelGroup(size, kept, unit, fixed)
        self._bound(name, boundaries)
        return name

    def axis(self, parameter: str, dim: int, *segments: Segment) -> None:
        """Say that an axis is these groups one after the other; a number is so many entries that
        all stay. A name may come more than once: the halves of a GEGLU, the chunks of an adaLN."""
        if (parameter, dim) in self.axes:
            raise ValueError(f"axis {dim} of {parameter} is mapped twice")
        self.axes[parameter, dim] = segments

    def scale(self, parameter: str, factor: float) -> None:
        """Multiply what stays of a parameter by this."""
        self.factors[parameter] = factor

    def group_norm(self, groups: int, *segments: str) -> None:
        """Keep the members of a group norm's groups together, also over a concatenation.

        Args:
            groups: of the student. Exact where the teacher has as many, or a multiple of it.
            segments: the groups that it normalises, one after the other.
        """
        members = [self.groups[name] for name in segments]
        first = members[0]
        if any(member.kept * first.size != first.kept * member.size for member in members):
            return  # then no choice of channels makes the student's groups of the teacher's
        total, start = sum(member.size for member in members), 0
        positions = [total * group // groups for group in range(groups + 1)]
        for name, member in zip(segments, members, strict=True):
            inside = [p - start for p in positions if start < p < start + member.size]
            self._bound(name, inside)
            start += member.size

    def indices(self, scores: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The channels that stay: in each group the most important ones.

        Args:
            scores: importance of each element of each parameter by name, on one device; what is
                left out does not count. A channel's is the sum over every axis of its group.

        Returns:
            Of each group, indices in ascending order, int64, (kept,).
        """
        channels = self._channel_scores(scores)
        return {
            name: group.fixed if group.fixed is not None else _most_important(group, channels[name])
            for name, group in self.groups.items()
        }

    def slice(
        self, state_dict: Mapping[str, Tensor], indices: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """The student's weights: copies that share no memory with the teacher's.

        Raises:
            ValueError: a mapped axis that is not there or not as long as its groups.
        """
        for name, dim in self.axes:
            if name not in state_dict or dim >= state_dict[name].ndim:
                raise ValueError(f"axis {dim} of {name} is mapped, but the model has none")
        return {name: self._slice(name, w.detach(), indices) for name, w in state_dict.items()}

    def _slice(self, name: str, weight: Tensor, indices: Mapping[str, Tensor]) -> Tensor:
        sliced = weight.clone()
        for dim in range(weight.ndim):
            if (name, dim) in self.axes:
                places = self._positions(name, dim, weight.shape[dim], indices)
                sliced = sliced.index_select(dim, places.to(weight.device))
        return sliced * self.factors[name] if name in self.factors else sliced

    def _positions(self, name: str, dim: int, length: int, indices) -> Tensor:
        places = []
        for segment, start in self._segments(name, dim, length):
            which = torch.arange(segment) if isinstance(segment, int) else indices[segment]
            places.append(which.cpu() + start)
        return torch.cat(places)

    def _segments(self, name: str, dim: int, length: int) -> list[tuple[Segment, int]]:
        """The segments of an axis and where each starts."""
        segments, start = [], 0
        for segment in self.axes[name, dim]:
            segments.append((segment, start))
            start += segment if isinstance(segment, int) else self.groups[segment].size
        if start != length:
            raise ValueError(f"axis {dim} of {name} has {length} entries, its groups have {start}")
        return segments

    def _channel_scores(self, scores: Mapping[str, Tensor]) -> dict[str, Tensor]:
        channels = {
            name: torch.zeros(group.size, dtype=torch.float64)
            for name, group in self.groups.items()
        }
        for parameter, dim in self.axes:
            if parameter not in scores:
                continue
            score = scores[parameter]
            others = [d for d in range(score.ndim) if d != dim]
            along = (score.double().sum(others) if others else score.double()).cpu()
            for segment, start in self._segments(parameter, dim, len(along)):
                if isinstance(segment, str):
                    channels[segment] += along[start : start + self.groups[segment].size]
        return channels

    def _bound(self, name: str, positions: Sequence[int]) -> None:
        group = self.groups[name]
        if any(position % group.unit for position in positions):
            raise ValueError(f"boundaries of group {name} cut its units of {group.unit}")
        group.boundaries.update(positions)


def _most_important(group: ChannelGroup, scores: Tensor) -> Tensor:
    """The best units of each cell between two boundaries; equal ones by index."""
    units = scores.reshape(-1, group.unit).sum(1)
    edges = sorted({0, group.size, *group.boundaries})
    chosen, kept = [], 0
    for start, end in zip(edges, edges[1:], strict=False):
        # Rounded at the edges, not in the cells, so that the cells add up.
        until = (2 * end * group.kept + group.size * group.unit) // (2 * group.size * group.unit)
        first, last = start // group.unit, end // group.unit
        order = units[first:last].argsort(descending=True, stable=True)
        chosen.append(first + order[: until - kept])
        kept = until
    starts = torch.cat(chosen).sort().values * group.unit
    return (starts[:, None] + torch.arange(group.unit)).flatten()
