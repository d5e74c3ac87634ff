import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from liftplace.families.channel_graph import ChannelGraph


def chosen(graph, **scores):
    indices = graph.indices({name: torch.tensor(score) for name, score in scores.items()})
    return {name: kept.tolist() for name, kept in indices.items()}


def test_a_channel_counts_by_every_axis_that_runs_over_it():
    graph = ChannelGraph()
    graph.group("hidden", 3, 2)
    graph.axis("write", 0, "hidden")
    graph.axis("read", 1, 2, "hidden")
    write = [[3.0, 1.0], [1.0, 1.0], [0.0, 0.0]]
    read = [[9.0, 9.0, 0.0, 0.0, 3.0]]
    assert chosen(graph, write=write) == {"hidden": [0, 1]}
    assert chosen(graph, write=write, read=read) == {"hidden": [0, 2]}


def test_equal_channels_stay_by_their_index():
    graph = ChannelGraph()
    graph.group("hidden", 1000, 3)
    assert chosen(graph) == {"hidden": [0, 1, 2]}


def test_units_stay_or_go_together():
    graph = ChannelGraph()
    graph.group("heads", 6, 4, unit=2)
    graph.axis("w", 0, "heads")
    assert chosen(graph, w=[0.0, 9.0, 4.0, 4.0, 5.0, 5.0]) == {"heads": [0, 1, 4, 5]}


def test_between_boundaries_the_same_share_stays():
    graph = ChannelGraph()
    graph.group("grouped", 8, 4, boundaries=(4,))
    graph.axis("w", 0, "grouped")
    assert chosen(graph, w=[1.0, 2.0, 3.0, 4.0, 50.0, 60.0, 70.0, 80.0]) == {
        "grouped": [2, 3, 6, 7]
    }


def test_given_indices_do_not_ask_the_weights():
    graph = ChannelGraph()
    graph.group("code", 4, 2, fixed=[0, 2])
    graph.axis("w", 0, "code")
    assert chosen(graph, w=[0.0, 9.0, 0.0, 9.0]) == {"code": [0, 2]}


@settings(max_examples=50, deadline=None)
@given(
    groups=st.sampled_from([1, 2, 4, 8]),
    first=st.integers(1, 4),
    second=st.integers(1, 4),
    seed=st.integers(0, 999),
)
def test_a_norm_over_a_concatenation_keeps_its_groups_members(groups, first, second, seed):
    sizes = [16 * first, 16 * second]
    graph = ChannelGraph()
    for name, size in zip("ab", sizes, strict=True):
        graph.group(name, size, size // 2)
        graph.axis(name, 0, name)
    graph.group_norm(groups, "a", "b")
    generator = torch.Generator().manual_seed(seed)
    scores = {n: torch.rand(s, generator=generator) for n, s in zip("ab", sizes, strict=True)}
    indices = graph.indices(scores)
    together = torch.cat([indices["a"], indices["b"] + sizes[0]])
    members = together * groups // sum(sizes)  # which of the teacher's groups
    assert members.tolist() == sorted(list(range(groups)) * (len(together) // groups))


@pytest.mark.parametrize("kept, best", [(1, [2, 3, 5]), (2, [3, 4, 5])])
def test_a_norm_over_unequal_shares_leaves_the_choice_to_the_weights(kept, best):
    graph = ChannelGraph()
    graph.group("a", 6, 3)
    graph.group("b", 2, kept)
    graph.axis("w", 0, "a")
    graph.group_norm(2, "a", "b")  # groups of four
    assert chosen(graph, w=[0.0, 1.0, 2.0, 3.0, 4.0, 5.0])["a"] == best


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_any_boundaries_leave_as_many_as_asked(data):
    unit = data.draw(st.integers(1, 3))
    size = data.draw(st.integers(1, 20))
    kept = data.draw(st.integers(1, size))
    boundaries = data.draw(st.lists(st.integers(0, size)))
    graph = ChannelGraph()
    graph.group("a", size * unit, kept * unit, unit=unit, boundaries=[b * unit for b in boundaries])
    indices = graph.indices({})["a"]
    assert len(indices) == kept * unit
    assert torch.equal(indices, indices.unique())
    for boundary in boundaries:
        share = (indices < boundary * unit).sum().item() / unit
        assert abs(share - boundary * kept / size) <= 0.5


def test_weights_are_sliced_along_every_axis_in_segments():
    graph = ChannelGraph()
    graph.group("a", 3, 1)
    graph.group("b", 2, 1)
    graph.axis("w", 0, "a", "a")
    graph.axis("w", 1, 1, "b")
    graph.scale("w", 10.0)
    weights = {"w": torch.arange(18.0).reshape(6, 3), "free": torch.ones(2)}
    sliced = graph.slice(weights, {"a": torch.tensor([2]), "b": torch.tensor([1])})
    assert sliced["w"].tolist() == [[60.0, 80.0], [150.0, 170.0]]
    assert sliced["free"].tolist() == [1.0, 1.0]
    assert sliced["free"].data_ptr() != weights["free"].data_ptr()


def test_numbers_that_do_not_fit_are_refused():
    graph = ChannelGraph()
    graph.group("a", 4, 2)
    with pytest.raises(ValueError, match="group a is declared twice"):
        graph.group("a", 4, 2)
    for kept, unit in ((5, 1), (0, 1), (2, 3), (1, 2)):
        with pytest.raises(ValueError, match=f"cannot keep {kept} of 4 in units of {unit}"):
            graph.group("b", 4, kept, unit=unit)
    with pytest.raises(ValueError, match="keeps 2, but 1 indices are fixed"):
        graph.group("c", 4, 2, fixed=[0])
    with pytest.raises(ValueError, match="cut its units of 2"):
        graph.group("d", 4, 2, unit=2, boundaries=(3,))


def test_axes_that_are_not_there_are_named():
    indices = {"a": torch.tensor([0, 1])}
    graph = ChannelGraph()
    graph.group("a", 4, 2)
    graph.axis("w", 1, "a")
    with pytest.raises(ValueError, match="axis 1 of w is mapped twice"):
        graph.axis("w", 1, "a")
    with pytest.raises(ValueError, match="axis 1 of w is mapped, but the model has none"):
        graph.slice({"w": torch.ones(4)}, indices)
    with pytest.raises(ValueError, match="axis 1 of w has 5 entries, its groups have 4"):
        graph.slice({"w": torch.ones(4, 5)}, indices)
