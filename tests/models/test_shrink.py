import pytest
import torch

from liftplace.common.errors import UsageError
from liftplace.models.shrink import shrink
from tests.train.tiny import assert_same_weights, tiny_unet


def test_student_differs_in_width_and_depth_alone():
    teacher = tiny_unet(layers_per_block=2, add_attention=True, attention_head_dim=4)
    student = shrink(teacher.config, (4, 4), 1)
    changed = {"block_out_channels", "layers_per_block", "norm_num_groups"}
    for name, value in teacher.config.items():
        if name not in changed and not name.startswith("_"):
            assert student.config[name] == value, name
    assert student.config.block_out_channels == (4, 4)
    assert student.config.layers_per_block == 1
    images = torch.randn(2, 1, 8, 8)
    assert student(images, torch.tensor([1, 2])).sample.shape == images.shape


def test_layers_stay_the_teachers_if_not_given():
    teacher = tiny_unet(layers_per_block=2)
    assert shrink(teacher.config, (4, 4)).config.layers_per_block == 2


@pytest.mark.parametrize(
    ("teachers", "channels", "groups"),
    [
        ((8, 8), (8, 16), 4),  # two a group, as the teacher
        ((8, 8), (6, 8), 2),
        ((8, 8), (4, 4), 2),
        ((8, 8), (3, 5), 1),
        ((16, 16), (8, 8), 2),  # four
        ((64, 64), (8, 8), 2),  # never more than four
        ((64, 64), (25, 50), 1),
        ((64, 64), (25, 51), 1),
        ((64, 64), (2, 4), 1),  # as many as there are
        ((4, 4), (8, 8), 2),  # also where the teacher has one
    ],
)
def test_every_norm_has_four_channels_a_group_or_what_its_teacher_has(teachers, channels, groups):
    teacher = tiny_unet(block_out_channels=teachers)
    student = shrink(teacher.config, channels)
    assert {
        module.num_groups for module in student.modules() if isinstance(module, torch.nn.GroupNorm)
    } == {groups}


def test_norm_of_the_mid_blocks_attention_goes_by_its_own_groups():
    teacher = tiny_unet(
        block_out_channels=(16, 32),
        attn_norm_num_groups=8,
        add_attention=True,
        attention_head_dim=4,
    )
    student = shrink(teacher.config, (8, 24))
    assert student.config.norm_num_groups == 2
    assert student.config.attn_norm_num_groups == 6
    assert student.mid_block.attentions[0].group_norm.num_groups == 6


def test_norm_groups_may_be_given():
    student = shrink(tiny_unet().config, (8, 16), norm_num_groups=2)
    norms = [module for module in student.modules() if isinstance(module, torch.nn.GroupNorm)]
    assert len(norms) > 3 and {norm.num_groups for norm in norms} == {2}
    with pytest.raises(UsageError, match=r"must divide the channels \[8, 16\], got 3"):
        shrink(tiny_unet().config, (8, 16), norm_num_groups=3)


def test_weights_follow_from_the_seed_and_the_global_generator_is_left_alone():
    before = torch.get_rng_state()
    one, same, other = (shrink(tiny_unet().config, (4, 4), seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert_same_weights(one, same)
    assert not torch.equal(one.conv_in.weight, other.conv_in.weight)


def test_number_of_levels_is_the_teachers():
    with pytest.raises(UsageError, match=r"2 numbers, .* teacher \[8, 8\], got \[4, 4, 4\]"):
        shrink(tiny_unet().config, (4, 4, 4))
