"""Teachers of which half is idle: a student made wider by channels that nothing reads."""

import torch
from torch import nn

from liftplace.families import Family
from liftplace.families.channel_graph import ChannelGraph, ChannelGroup


def even(model: nn.Module, seed: int) -> nn.Module:
    """The model in float64 with weights of random sign and nearly the same size, so that channels
    differ little in importance but for those that nothing reads."""
    generator = torch.Generator().manual_seed(seed)
    for weight in model.double().parameters():
        noise = torch.randn(weight.shape, generator=generator, dtype=weight.dtype)
        size = weight[0].numel() ** -0.5 if weight.ndim > 1 else 0.5
        weight.data = size * (noise.sign() + 0.05 * noise)
    return model.eval()


def idle_twin(family: Family, config: dict, width: float, seed: int = 0, **options):
    """A student of this width, and a teacher that computes the same.

    The teacher's other channels are copies of the student's, so that norms see the same mean and
    variance, and every weight that reads them is 0.

    Args:
        options: of `narrow_config`.

    Returns:
        Teacher, student, and the channels of each group that the student has.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        teacher = family.model_class(**config)
        narrow_config = family.narrow_config(teacher.config, width, **options)
        student = even(family.model_class(**narrow_config), seed)
        graph = family.channel_graph(teacher, narrow_config)
        scores = {name: torch.rand(w.shape) for name, w in teacher.named_parameters()}
    kept = graph.indices(scores)
    sources = {name: _sources(group, kept[name]) for name, group in graph.groups.items()}
    weights = {
        name: _widened(name, weight, graph, kept, sources, _reads(teacher, name))
        for name, weight in student.state_dict().items()
    }
    teacher.double().load_state_dict(weights)
    return teacher.eval(), student, kept


def _widened(name, weight, graph: ChannelGraph, kept, sources, reads: bool):
    if name in graph.factors:
        weight = weight / graph.factors[name]
    for dim in range(weight.ndim):
        if (name, dim) not in graph.axes:
            continue
        places, silent, start = [], [], 0
        for segment in graph.axes[name, dim]:
            if isinstance(segment, int):
                places.append(torch.arange(segment) + start)
                silent.append(torch.zeros(segment, dtype=torch.bool))
                start += segment
                continue
            idle = torch.ones(graph.groups[segment].size, dtype=torch.bool)
            idle[kept[segment]] = False
            # A product of queries and keys reads both without a weight.
            unread = (reads and dim == 1) or segment.endswith(".queries")
            places.append(sources[segment] + start)
            silent.append(idle & unread)
            start += graph.groups[segment].kept
        weight = weight.index_select(dim, torch.cat(places))
        weight = weight.index_fill(dim, torch.cat(silent).nonzero().flatten(), 0.0)
    return weight


def _sources(group: ChannelGroup, kept: torch.Tensor) -> torch.Tensor:
    """(size,): which of the student's channels each of the teacher's is or copies; those of a cell
    are copied equally often."""
    sources = torch.zeros(group.size, dtype=torch.long)
    edges = sorted({0, group.size, *group.boundaries})
    for start, end in zip(edges, edges[1:], strict=False):
        inside = ((kept >= start) & (kept < end)).nonzero().flatten()
        others = [c for c in range(start, end) if c not in set(kept.tolist())]
        sources[kept[inside]] = inside
        for i, channel in enumerate(others):
            if len(inside):
                sources[channel] = inside[i % len(inside)]
    return sources


def _reads(model: nn.Module, name: str) -> bool:
    """Whether a weight's second axis reads channels: a table's writes them."""
    module = model.get_submodule(name.rpartition(".")[0])
    return isinstance(module, nn.Linear | nn.Conv2d)
