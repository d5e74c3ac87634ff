import pytest
import torch

from liftplace.common.errors import UsageError
from liftplace.families import families, family_of_model
from liftplace.families.transformer import position_code_channels
from liftplace.students.importance import magnitude, taylor
from liftplace.students.width import narrow
from tests.families.tiny import TINY, tiny_model
from tests.students.twins import idle_twin

DIT, PIXART, SD3, FLUX = (f"{name}Transformer2DModel" for name in ("DiT", "PixArt", "SD3", "Flux"))
FOUR_HEADS = {"num_attention_heads": 4}
VARIANTS = [
    (DIT, FOUR_HEADS),
    (DIT, FOUR_HEADS | {"norm_elementwise_affine": True, "attention_bias": False}),
    (PIXART, FOUR_HEADS | {"cross_attention_dim": 32}),
    (PIXART, {"num_attention_heads": 6, "cross_attention_dim": 48, "norm_elementwise_affine": True,
              "use_additional_conditions": True}),
    (PIXART, FOUR_HEADS | {"caption_channels": None, "cross_attention_dim": 20}),
    (SD3, FOUR_HEADS | {"caption_projection_dim": 32}),
    (SD3, FOUR_HEADS | {"caption_projection_dim": 32, "dual_attention_layers": (0, 2),
                        "qk_norm": "rms_norm"}),
    (FLUX, {}),
    (FLUX, FOUR_HEADS | {"guidance_embeds": True}),
]  # fmt: skip
REAL = {
    "DiT-XL/2": (DIT, {}, (4, 12, 8)),
    "PixArt-XL-2-1024": (PIXART, {"caption_channels": 4096}, (4, 12, 8)),
    "SD3-medium": (SD3, {"num_layers": 24, "num_attention_heads": 24, "pos_embed_max_size": 192,
                         "caption_projection_dim": 1536}, (6, 18, 12)),
    "SD3.5-medium": (SD3, {"num_layers": 24, "num_attention_heads": 24, "pos_embed_max_size": 384,
                           "caption_projection_dim": 1536, "qk_norm": "rms_norm",
                           "dual_attention_layers": tuple(range(13))}, (6, 18, 12)),
    "FLUX.1-dev": (FLUX, {"guidance_embeds": True}, (6, 18, 12)),
}  # fmt: skip


def output(model, config):
    torch.manual_seed(5)
    family = family_of_model(model)
    noisy, timesteps, conditions = family.example(config, batch=2)
    doubled = {n: c.double() if c.is_floating_point() else c for n, c in conditions.items()}
    return family.predict(model, noisy.double(), timesteps, doubled)


@pytest.mark.parametrize("importance", ["magnitude", "taylor"])
@pytest.mark.parametrize(("name", "changes"), VARIANTS)
def test_a_teacher_with_an_idle_half_and_its_student_compute_the_same(name, changes, importance):
    family = families()[name]
    teacher, _, kept = idle_twin(family, TINY[name] | changes, 0.5)
    if name in (DIT, PIXART):  # what is added for the place is computed, not a weight
        code = teacher.pos_embed.pos_embed
        code[..., 1::2] = code[..., ::2]
    before = output(teacher, teacher.config)
    if importance == "magnitude":
        scores = magnitude(teacher)
    else:
        scores = taylor(teacher, [before.square().sum()])
    student, found = narrow(teacher, family, 0.5, scores=scores)
    assert all(torch.equal(found[group], kept[group]) for group in kept)
    assert student.config.num_attention_heads == teacher.config.num_attention_heads // 2
    torch.testing.assert_close(output(student.eval(), teacher.config), before)


@pytest.mark.parametrize("name", [DIT, PIXART, SD3, FLUX])
def test_saved_student_computes_as_before(name, tmp_path):
    teacher, family = tiny_model(name), families()[name]
    student, _ = narrow(teacher, family, 0.5, scores=magnitude(teacher))
    student.save_pretrained(tmp_path)
    loaded = type(student).from_pretrained(tmp_path)
    inputs = family.example(teacher.config)
    with torch.no_grad():
        outputs = [family.predict(model.eval(), *inputs) for model in (student, loaded)]
    torch.testing.assert_close(*outputs)
    assert "_name_or_path" not in family.narrow_config(loaded.config, 1.0)


@pytest.mark.parametrize("width", [0.25, 0.75])
@pytest.mark.parametrize("name", [DIT, PIXART, SD3, FLUX])
def test_other_widths_train(name, width):
    follows = {PIXART: {"cross_attention_dim": 32}, SD3: {"caption_projection_dim": 32}}
    changes = FOUR_HEADS | follows.get(name, {})
    teacher, family = tiny_model(name, **changes), families()[name]
    student, _ = narrow(teacher, family, width, scores=magnitude(teacher))
    assert student.config["num_attention_heads"] == 4 * width
    family.predict(student, *family.example(student.config)).square().mean().backward()
    assert all(torch.isfinite(w.grad).all() for w in student.parameters() if w.grad is not None)
    assert sum(w.grad is not None and bool(w.grad.any()) for w in student.parameters()) > 20


@pytest.mark.parametrize("model", REAL)
def test_released_models_have_a_width(model):
    name, changes, heads = REAL[model]
    family = families()[name]
    teacher = family.skeleton(changes)
    for width, expected in zip((0.25, 0.75, 0.5), heads, strict=True):
        config = family.narrow_config(teacher.config, width)
        assert config["num_attention_heads"] == expected
    graph = family.channel_graph(teacher, config)
    theirs, ours = teacher.state_dict(), family.skeleton(config).state_dict()
    for (weight, dim), segments in graph.axes.items():
        groups = [graph.groups[segment] for segment in segments]
        assert sum(group.size for group in groups) == theirs[weight].shape[dim]
        assert sum(group.kept for group in groups) == ours[weight].shape[dim]
    for weight in theirs:
        for dim, length in enumerate(theirs[weight].shape):
            assert (weight, dim) in graph.axes or ours[weight].shape[dim] == length


@pytest.mark.parametrize(
    ("name", "changes", "width", "heads"),
    [
        (DIT, {"num_attention_heads": 7}, 0.5, 3),  # of 3 and 4 as near, the smaller
        (DIT, {"num_attention_heads": 8, "attention_head_dim": 6}, 0.4, 4),  # 18 has no quarter
        (FLUX, {"num_attention_heads": 3}, 0.3, 1),
        (DIT, {}, 1.0, 2),
    ],
)
def test_heads_are_rounded(name, changes, width, heads):
    model = tiny_model(name, **changes)
    config = families()[name].narrow_config(model.config, width)
    assert config["num_attention_heads"] == heads


@pytest.mark.parametrize(
    ("name", "changes", "width", "possible"),
    [
        (DIT, {}, 0.1, "possible are 0.5"),
        (DIT, {}, 0.9, "possible are 0.5"),
        (DIT, {"num_attention_heads": 1}, 0.5, "possible are none"),
        (PIXART, {"num_attention_heads": 6, "cross_attention_dim": 48,
                  "use_additional_conditions": True}, 0.1, "possible are 0.5"),
    ],
)  # fmt: skip
def test_width_that_cannot_be_rounded(name, changes, width, possible):
    model = tiny_model(name, **changes)
    with pytest.raises(UsageError, match=f"--width {width} .* cannot be rounded .* {possible}"):
        families()[name].narrow_config(model.config, width)


def test_position_code_of_what_stays():
    """At half the width exactly the student's; otherwise each of its frequencies has a near one."""
    wide, half = (tiny_model(DIT, num_attention_heads=n).pos_embed.pos_embed[0] for n in (4, 2))
    assert torch.equal(wide[:, position_code_channels(32, 16)], half)
    kept = position_code_channels(48, 32)
    assert len(set(kept)) == 32
    wide, narrower = (tiny_model(DIT, num_attention_heads=n).pos_embed.pos_embed[0] for n in (6, 4))
    distance = torch.cdist(narrower.T, wide.T)
    assert (distance[torch.arange(32), kept] <= distance.median()).all()


def test_thirds_of_the_stream_keep_the_same_channels():
    """PixArt embeds height and width by one layer, whose output is two thirds of the stream."""
    kept = position_code_channels(96, 72)
    assert kept[24:48] == [32 + channel for channel in kept[:24]]
    assert kept[48:] == [64 + channel for channel in kept[:24]]
