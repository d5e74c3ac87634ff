import pytest
import torch

from liftplace.common.errors import UsageError
from liftplace.families import family_of_model
from liftplace.students.depth import (
    even_layers,
    important_layers,
    keep_layers,
    layer_importance,
)
from tests.families.tiny import tiny_model

DIT, PIXART, SD3, FLUX = (f"{name}Transformer2DModel" for name in ("DiT", "PixArt", "SD3", "Flux"))
ADDS_TO_THE_STREAM = ("to_out.0", "to_add_out", "net.2", "proj_out")


def inputs(model):
    torch.manual_seed(5)
    return family_of_model(model).example(model.config, batch=2)


@torch.no_grad()
def output(model):
    return family_of_model(model).predict(model.eval(), *inputs(model))


def without(model, layers):
    """The same model with the other blocks taken out of it."""
    blocks = list(family_of_model(model).blocks(model).values())
    kept = [block for number, block in enumerate(blocks) if number in layers]
    for name in family_of_model(model).layers(model.config):
        old = getattr(model, name)
        setattr(model, name, torch.nn.ModuleList([block for block in old if block in kept]))
    return model


@pytest.mark.parametrize(
    ("name", "changes", "layers"),
    [
        (DIT, {}, (0, 2)),
        (DIT, {}, (1,)),
        (PIXART, {}, (1, 3)),
        (SD3, {}, (0, 3)),
        (SD3, {}, (0, 1)),
        (SD3, {"dual_attention_layers": (0, 1, 2), "qk_norm": "rms_norm"}, (1, 2)),
        (FLUX, {}, (0, 2, 5)),
        (FLUX, {"guidance_embeds": True}, (3, 4)),
    ],
)
def test_student_computes_with_the_blocks_that_stay(name, changes, layers, tmp_path):
    teacher = tiny_model(name, **changes)
    student, layer_map = keep_layers(teacher, family_of_model(teacher), layers)
    assert list(layer_map) == list(family_of_model(teacher).blocks(student))
    names = list(family_of_model(teacher).blocks(teacher))
    assert list(layer_map.values()) == [names[layer] for layer in layers]
    student.save_pretrained(tmp_path)
    torch.testing.assert_close(
        output(type(student).from_pretrained(tmp_path)), output(without(teacher, layers))
    )


def test_student_shares_no_memory_with_the_teacher():
    teacher = tiny_model(DIT)
    before = output(teacher)
    student, _ = keep_layers(teacher, family_of_model(teacher), (0, 1))
    for weight in student.parameters():
        weight.data.zero_()
    assert torch.equal(output(teacher), before)


def test_dual_attention_is_counted_anew():
    teacher = tiny_model(SD3, dual_attention_layers=(0, 2))
    student, _ = keep_layers(teacher, family_of_model(teacher), (1, 2, 3))
    assert student.config["dual_attention_layers"] == (1,)


@pytest.mark.parametrize(("depth", "layers"), [(1, [0]), (2, [0, 3]), (3, [0, 2, 3])])
def test_even_layers(depth, layers):
    model = tiny_model(DIT)
    assert even_layers(model.config, family_of_model(model), depth) == layers


@pytest.mark.parametrize(
    ("lengths", "depth", "layers"),
    [
        ((2, 4), 2, [0, 2]),
        ((2, 4), 3, [0, 2, 5]),
        ((2, 4), 5, [0, 1, 2, 4, 5]),
        ((5, 1), 2, [0, 5]),
        ((1, 5), 5, [0, 1, 2, 4, 5]),
        ((0, 4), 2, [0, 3]),
    ],
)
def test_double_and_single_blocks_share_the_depth(lengths, depth, layers):
    model = tiny_model(FLUX)
    config = model.config | dict(zip(("num_layers", "num_single_layers"), lengths, strict=True))
    assert even_layers(config, family_of_model(model), depth) == layers


@pytest.mark.parametrize(("name", "inert"), [(DIT, 1), (PIXART, 0), (SD3, 2), (FLUX, 0), (FLUX, 4)])
def test_a_block_that_does_nothing_is_the_least_important(name, inert):
    model = tiny_model(name).eval()
    family = family_of_model(model)
    block = list(family.blocks(model).values())[inert]
    for part, weight in block.named_parameters():
        if part.rpartition(".")[0].endswith(ADDS_TO_THE_STREAM):
            weight.data.zero_()
    before = output(model)
    importance = layer_importance(model, family, [inputs(model)])
    assert importance[inert] == 0
    assert all(value > 0 for number, value in enumerate(importance) if number != inert)
    others = [number for number in range(len(importance)) if number != inert]
    torch.testing.assert_close(output(keep_layers(model, family, others)[0]), before)
    assert torch.equal(output(model), before)  # no hook is left


@pytest.mark.parametrize(
    ("name", "left_out"), [(DIT, 2), (PIXART, 1), (SD3, 1), (FLUX, 0), (FLUX, 3)]
)
def test_importance_is_the_change_when_a_block_is_left_out(name, left_out):
    model = tiny_model(name).eval()
    importance = layer_importance(model, family_of_model(model), [inputs(model)])
    whole = output(model)
    others = [number for number in range(len(importance)) if number != left_out]
    expected = (output(without(model, others)) - whole).square().sum() / whole.square().sum()
    assert importance[left_out] == pytest.approx(expected.item(), rel=1e-3)


@pytest.mark.parametrize(
    ("name", "depth", "importance", "layers"),
    [
        (DIT, 2, [0.1, 0.3, 0.2, 0.4], [1, 3]),
        (DIT, 2, [0.1, 0.1, 0.1, 0.1], [0, 1]),
        (FLUX, 3, [0.1, 0.2, 0.6, 0.5, 0.9, 0.3], [1, 2, 4]),
    ],
)
def test_the_most_important_layers_stay_in_order(name, depth, importance, layers):
    model = tiny_model(name)
    assert important_layers(model.config, family_of_model(model), depth, importance) == layers


@pytest.mark.parametrize("layers", [(), (2, 1), (1, 1), (0, 4), (-1, 2)])
def test_layers_that_do_not_fit(layers):
    model = tiny_model(DIT)
    with pytest.raises(UsageError, match=r"--keep_layers .* does not fit: .* from 0 to 3"):
        keep_layers(model, family_of_model(model), layers)


@pytest.mark.parametrize(("name", "depth", "possible"), [(DIT, 4, "1 to 3"), (FLUX, 1, "2 to 5")])
def test_depth_that_does_not_fit(name, depth, possible):
    model = tiny_model(name)
    with pytest.raises(UsageError, match=f"--depth {depth} does not fit .* {possible}"):
        even_layers(model.config, family_of_model(model), depth)


def test_a_unet_has_no_layers_to_choose():
    model = tiny_model("UNet2DModel")
    with pytest.raises(UsageError, match="for transformers, and this is a UNet2DModel"):
        keep_layers(model, family_of_model(model), (0,))
