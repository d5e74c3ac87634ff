import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from liftplace.families.spaces import Wiring


def chosen(wiring, **scores):
    indices = wiring.indices({name: torch.tensor(score) for name, score in scores.items()})
    return {name: kept.tolist() for name, kept in indices.items()}


def test_a_channel_counts_by_every_axis_that_runs_over_it():
    wiring = Wiring()
    wiring.space("hidden", 3, 2)
    wiring.axis("write", 0, "hidden")
    wiring.axis("read", 1, 2, "hidden")
    write = [[3.0, 1.0], [1.0, 1.0], [0.0, 0.0]]
    read = [[9.0, 9.0, 0.0, 0.0, 3.0]]
    assert chosen(wiring, write=write) == {"hidden": [0, 1]}
    assert chosen(wiring, write=write, read=read) == {"hidden": [0, 2]}


def test_equal_channels_stay_by_their_index():
    wiring = Wiring()
    wiring.space("hidden", 1000, 3)
    assert chosen(wiring) == {"hidden": [0, 1, 2]}


def test_units_stay_or_go_together():
    wiring = Wiring()
    wiring.space("heads", 6, 4, unit=2)
    wiring.axis("w", 0, "heads")
    assert chosen(wiring, w=[0.0, 9.0, 4.0, 4.0, 5.0, 5.0]) == {"heads": [0, 1, 4, 5]}


def test_between_boundaries_the_same_share_stays():
    wiring = Wiring()
    wiring.space("grouped", 8, 4, boundaries=(4,))
    wiring.axis("w", 0, "grouped")
    assert chosen(wiring, w=[1.0, 2.0, 3.0, 4.0, 50.0, 60.0, 70.0, 80.0]) == {
        "grouped": [2, 3, 6, 7]
    }


def test_given_indices_do_not_ask_the_weights():
    wiring = Wiring()
    wiring.space("code", 4, 2, fixed=[0, 2])
    wiring.axis("w", 0, "code")
    assert chosen(wiring, w=[0.0, 9.0, 0.0, 9.0]) == {"code": [0, 2]}


@settings(max_examples=50, deadline=None)
@given(
    groups=st.sampled_from([1, 2, 4, 8]),
    first=st.integers(1, 4),
    second=st.integers(1, 4),
    seed=st.integers(0, 999),
)
def test_a_norm_over_a_concatenation_keeps_its_groups_members(groups, first, second, seed):
    sizes = [16 * first, 16 * second]
    wiring = Wiring()
    for name, size in zip("ab", sizes, strict=True):
        wiring.space(name, size, size // 2)
        wiring.axis(name, 0, name)
    wiring.group_norm(groups, "a", "b")
    generator = torch.Generator().manual_seed(seed)
    scores = {n: torch.rand(s, generator=generator) for n, s in zip("ab", sizes, strict=True)}
    indices = wiring.indices(scores)
    together = torch.cat([indices["a"], indices["b"] + sizes[0]])
    members = together * groups // sum(sizes)  # which of the teacher's groups
    assert members.tolist() == sorted(list(range(groups)) * (len(together) // groups))


@pytest.mark.parametrize("kept, best", [(1, [2, 3, 5]), (2, [3, 4, 5])])
def test_a_norm_over_unequal_shares_leaves_the_choice_to_the_weights(kept, best):
    wiring = Wiring()
    wiring.space("a", 6, 3)
    wiring.space("b", 2, kept)
    wiring.axis("w", 0, "a")
    wiring.group_norm(2, "a", "b")  # groups of four
    assert chosen(wiring, w=[0.0, 1.0, 2.0, 3.0, 4.0, 5.0])["a"] == best


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_any_boundaries_leave_as_many_as_asked(data):
    unit = data.draw(st.integers(1, 3))
    size = data.draw(st.integers(1, 20))
    kept = data.draw(st.integers(1, size))
    boundaries = data.draw(st.lists(st.integers(0, size)))
    wiring = Wiring()
    wiring.space(
        "a", size * unit, kept * unit, unit=unit, boundaries=[b * unit for b in boundaries]
    )
    indices = wiring.indices({})["a"]
    assert len(indices) == kept * unit
    assert torch.equal(indices, indices.unique())
    for boundary in boundaries:
        share = (indices < boundary * unit).sum().item() / unit
        assert abs(share - boundary * kept / size) <= 0.5


def test_weights_are_sliced_along_every_axis_in_segments():
    wiring = Wiring()
    wiring.space("a", 3, 1)
    wiring.space("b", 2, 1)
    wiring.axis("w", 0, "a", "a")
    wiring.axis("w", 1, 1, "b")
    wiring.scale("w", 10.0)
    weights = {"w": torch.arange(18.0).reshape(6, 3), "free": torch.ones(2)}
    sliced = wiring.slice(weights, {"a": torch.tensor([2]), "b": torch.tensor([1])})
    assert sliced["w"].tolist() == [[60.0, 80.0], [150.0, 170.0]]
    assert sliced["free"].tolist() == [1.0, 1.0]
    assert sliced["free"].data_ptr() != weights["free"].data_ptr()


def test_numbers_that_do_not_fit_are_refused():
    wiring = Wiring()
    wiring.space("a", 4, 2)
    with pytest.raises(ValueError, match="space a is declared twice"):
        wiring.space("a", 4, 2)
    for kept, unit in ((5, 1), (0, 1), (2, 3), (1, 2)):
        with pytest.raises(ValueError, match=f"cannot keep {kept} of 4 in units of {unit}"):
            wiring.space("b", 4, kept, unit=unit)
    with pytest.raises(ValueError, match="keeps 2, but 1 indices are fixed"):
        wiring.space("c", 4, 2, fixed=[0])
    with pytest.raises(ValueError, match="cut its units of 2"):
        wiring.space("d", 4, 2, unit=2, boundaries=(3,))


def test_axes_that_are_not_there_are_named():
    indices = {"a": torch.tensor([0, 1])}
    wiring = Wiring()
    wiring.space("a", 4, 2)
    wiring.axis("w", 1, "a")
    with pytest.raises(ValueError, match="axis 1 of w is wired twice"):
        wiring.axis("w", 1, "a")
    with pytest.raises(ValueError, match="axis 1 of w is wired, but the model has none"):
        wiring.slice({"w": torch.ones(4)}, indices)
    with pytest.raises(ValueError, match="axis 1 of w has 5 entries, its spaces have 4"):
        wiring.slice({"w": torch.ones(4, 5)}, indices)
