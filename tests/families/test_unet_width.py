import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from liftplace.common.errors import UsageError
from liftplace.families import families
from liftplace.students.width import sliced
from tests.families.tiny import TINY

PLAIN, TEXT = families()["UNet2DModel"], families()["UNet2DConditionModel"]


def narrowed(family, width, **changes):
    return family.narrow_config(family.complete(TINY[family.class_name] | changes), width)


@pytest.mark.parametrize(
    "channels, groups, width, expected, expected_groups",
    [
        ((64, 128), 8, 0.5, (32, 64), 8),
        ((64, 128), 8, 0.78, (48, 96), 8),  # rounded
        ((32, 64), 8, 0.5, (16, 32), 4),  # four channels a group
        ((32, 64), 8, 0.25, (8, 16), 2),
        ((32, 64), 8, 0.125, (4, 8), 1),
        ((32, 64), 8, 0.0625, (2, 4), 1),  # as many as there are
        ((24, 48), 8, 0.5, (12, 24), 4),  # three, as the teacher
        ((16, 32), 8, 0.5, (8, 16), 4),  # two
        ((8, 16), 8, 0.5, (4, 8), 1),  # four again where the teacher has one
        ((8, 16), 8, 1, (8, 16), 8),  # the teacher itself
        ((32, 64), 8, 0.9, (28, 56), 4),  # never the teacher's own
        ((56, 64), 8, 0.42, (24, 28), 4),  # not both 24: different stages stay different
    ],
)
def test_channels_are_rounded_to_norm_groups(channels, groups, width, expected, expected_groups):
    student = narrowed(
        PLAIN, width, block_out_channels=channels, norm_num_groups=groups, attention_head_dim=None
    )
    assert student["block_out_channels"] == expected
    assert student["norm_num_groups"] == expected_groups


def test_norm_groups_may_be_given():
    assert narrowed(PLAIN, 0.25, attention_head_dim=None)["norm_num_groups"] == 2
    student = PLAIN.narrow_config(
        PLAIN.complete(TINY["UNet2DModel"] | {"attention_head_dim": None}), 0.25, norm_num_groups=4
    )
    assert (student["block_out_channels"], student["norm_num_groups"]) == ((4, 8), 4)
    config = TEXT.complete(TINY["UNet2DConditionModel"])
    assert TEXT.narrow_config(config, 0.5, norm_num_groups=8)["norm_num_groups"] == 8
    with pytest.raises(UsageError, match="no channels near .* that 64 norm groups .*: no width"):
        TEXT.narrow_config(config | {"norm_num_groups": 8}, 0.5, norm_num_groups=64)


def test_norm_of_the_mid_blocks_attention_goes_by_its_own_groups():
    changes = {"block_out_channels": (64, 128), "attn_norm_num_groups": 32}
    assert narrowed(PLAIN, 0.25, **changes)["attn_norm_num_groups"] == 8
    assert narrowed(PLAIN, 1, **changes)["attn_norm_num_groups"] == 32


@pytest.mark.parametrize(
    "channels, width, expected, head",
    [((16, 32), 0.5, (8, 16), 8), ((16, 32), 0.25, (4, 8), 8), ((16, 24), 0.5, (8, 12), 4)],
)
def test_whole_heads_stay_or_all_get_narrower(channels, width, expected, head):
    student = narrowed(PLAIN, width, block_out_channels=channels, norm_num_groups=4)
    assert (student["block_out_channels"], student["attention_head_dim"]) == (expected, head)


def test_a_width_that_cannot_be_rounded_names_one_that_can():
    with pytest.raises(UsageError, match=r"width 0.1: .* \[16, 32\] .*: try 0.125"):
        narrowed(PLAIN, 0.1)
    assert narrowed(PLAIN, 0.125)["block_out_channels"] == (2, 4)


def test_blocks_and_attention_of_another_kind_are_refused():
    skip = {
        "down_block_types": ("SkipDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "SkipUpBlock2D"),
    }
    with pytest.raises(UsageError, match="cannot narrow blocks of type SkipDownBlock2D"):
        narrowed(PLAIN, 0.5, **skip)
    with pytest.raises(UsageError, match="cannot narrow a model with attention_type gated"):
        narrowed(TEXT, 0.5, attention_type="gated")


@settings(max_examples=20, deadline=None)
@given(st.data())
def test_a_student_of_any_width_fits_its_teacher(data):
    family = data.draw(st.sampled_from([PLAIN, TEXT]))
    groups = data.draw(st.sampled_from([1, 2, 4, 8]))
    channels = tuple(8 * data.draw(st.integers(1, 8)) for _ in range(2))
    heads = data.draw(st.sampled_from([1, 2, 4, 8]))
    width = data.draw(st.floats(0.05, 1))
    changes = {"block_out_channels": channels, "norm_num_groups": groups, "freq_shift": 1}
    try:
        student = narrowed(family, width, attention_head_dim=heads, **changes)
    except UsageError as error:
        assert "try" in str(error)
        assume(False)
    for old, new in zip(channels, student["block_out_channels"], strict=True):
        assert abs(new / old - width) <= width / 8
    teacher = family.skeleton(TINY[family.class_name] | changes | {"attention_head_dim": heads})
    graph = family.channel_graph(teacher, student)
    sliced(teacher, family.skeleton(student), graph, graph.indices({}))
