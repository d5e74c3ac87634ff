import pytest
import torch

from liftplace.common.errors import UsageError
from liftplace.families import families
from liftplace.students.drop_blocks import drop_blocks
from tests.families.tiny import tiny_model
from tests.students.unets import SD15, SDXL

TEXT = families()["UNet2DConditionModel"]
THREE_STAGES = {
    "block_out_channels": (16, 32, 32),
    "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
}
UNEVEN = {
    "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    "transformer_layers_per_block": [[1, 2], [2, 1]],
    "reverse_transformer_layers_per_block": [[1, 2, 3], [3, 1, 2]],
}


def teacher_of(**changes):
    return tiny_model(TEXT.class_name, **changes)


def make_identity(block) -> None:
    """Let a block pass its input on: a resnet of an up stage without the skip connection."""
    for name, weight in block.named_parameters():
        if name.startswith(("conv2", "proj_out", "conv_shortcut")):
            weight.data.zero_()
        if name == "conv_shortcut.weight":
            weight.data[:, :, 0, 0] = torch.eye(*weight.shape[:2])


@torch.no_grad()
def output_of(model):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return TEXT.predict(model.eval(), *TEXT.example(model.config, batch=2))


@pytest.mark.parametrize("kind", ["bk-base", "bk-small"])
@pytest.mark.parametrize("changes", [{}, THREE_STAGES, UNEVEN])
def test_leaving_out_blocks_that_do_nothing_changes_nothing(kind, changes):
    teacher = teacher_of(**changes)
    for block in (*teacher.down_blocks, *teacher.up_blocks):
        make_identity(block.resnets[1])
        if hasattr(block, "attentions"):
            make_identity(block.attentions[1])
    if kind == "bk-small":
        for part in (*teacher.mid_block.resnets, *teacher.mid_block.attentions):
            make_identity(part)
    student, layer_map = drop_blocks(teacher, TEXT, kind)
    torch.testing.assert_close(output_of(student), output_of(teacher))
    assert layer_map == {name: name for name in TEXT.blocks(student)}
    assert ("mid_block" in layer_map) == (kind == "bk-base")


def test_tiny_loses_the_innermost_stage():
    teacher = teacher_of(**THREE_STAGES, attention_head_dim=(2, 4, 4))
    student, layer_map = drop_blocks(teacher, TEXT, "bk-tiny")
    assert student.config.attention_head_dim == [2, 4]
    assert layer_map == {
        "down_blocks.0": "down_blocks.0",
        "up_blocks.0": "up_blocks.1",
        "up_blocks.1": "up_blocks.2",
    }
    pairs = {
        "down_blocks.1.resnets.0": "down_blocks.1.resnets.0",
        "up_blocks.0.resnets.1": "up_blocks.1.resnets.2",
        "up_blocks.1.attentions.0": "up_blocks.2.attentions.0",
        "up_blocks.0.upsamplers.0": "up_blocks.1.upsamplers.0",
    }
    for ours, theirs in pairs.items():
        kept, given = student.get_submodule(ours), teacher.get_submodule(theirs)
        for one, other in zip(kept.parameters(), given.parameters(), strict=True):
            assert torch.equal(one, other)
            assert one.data_ptr() != other.data_ptr()


@pytest.mark.parametrize("kind", ["bk-base", "bk-small", "bk-tiny"])
def test_students_are_plain_diffusers_models(kind, tmp_path):
    student, _ = drop_blocks(teacher_of(**THREE_STAGES).bfloat16(), TEXT, kind)
    assert student.dtype == torch.bfloat16
    student.save_pretrained(tmp_path)
    loaded = TEXT.model_class.from_pretrained(tmp_path)
    output = TEXT.predict(loaded, *TEXT.example(loaded.config, batch=2))
    output.square().mean().backward()
    assert output.shape == (2, 4, 8, 8)
    assert all(weight.grad.isfinite().all() for weight in loaded.parameters())


# Of BK-SDM's U-Nets as published (arXiv 2305.15798); SDXL's shapes fit together.
@pytest.mark.parametrize(
    "config, kind, millions",
    [
        (SD15, "bk-base", 579.4),
        (SD15, "bk-small", 482.3),
        (SD15, "bk-tiny", 323.4),
        (SDXL, "bk-base", None),
        (SDXL, "bk-small", None),
    ],
)
def test_real_models(config, kind, millions):
    teacher = TEXT.skeleton(config)
    with torch.device("meta"):
        student, _ = drop_blocks(teacher, TEXT, kind)
    if millions is not None:
        assert student.num_parameters() / 1e6 == pytest.approx(millions, abs=0.1)


def test_models_without_these_blocks_are_refused():
    with pytest.raises(UsageError, match="one of bk-base, bk-small, bk-tiny, got bk-huge"):
        drop_blocks(teacher_of(), TEXT, "bk-huge")
    with pytest.raises(UsageError, match="layers_per_block 2, got 1"):
        drop_blocks(teacher_of(layers_per_block=1), TEXT, "bk-base")
    with pytest.raises(
        UsageError, match=r"same width, got block_out_channels \[16, 32\]: use bk-s"
    ):
        drop_blocks(teacher_of(), TEXT, "bk-tiny")
    plain = families()["UNet2DModel"]
    with pytest.raises(UsageError, match="is for UNet2DConditionModel, got UNet2DModel: use width"):
        drop_blocks(tiny_model(plain.class_name), plain, "bk-base")
