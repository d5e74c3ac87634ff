"""Narrow U-Nets: the slicing is exact, and every width makes a model of diffusers."""

import pytest
import torch

from liftplace.common.errors import UsageError
from liftplace.families import families
from liftplace.students.importance import magnitude, taylor
from liftplace.students.width import inherit, narrow, sliced
from tests.families.tiny import TINY, tiny_model
from tests.students.twins import idle_twin
from tests.students.unets import SD15, SD21, SDXL

PLAIN, TEXT = "UNet2DModel", "UNet2DConditionModel"
XL = {
    "transformer_layers_per_block": (1, 2), "use_linear_projection": True,
    "attention_head_dim": (1, 2), "addition_embed_type": "text_time",
    "addition_time_embed_dim": 4, "projection_class_embeddings_input_dim": 24 + 20,
}  # fmt: skip
HALVES = {
    "classes": (PLAIN, {"num_class_embeds": 10}),
    "one head": (PLAIN, {"attention_head_dim": None}),
    "less of each head": (PLAIN, {"block_out_channels": (8, 24), "norm_num_groups": 4}),
    "scale and shift": (PLAIN, {"resnet_time_scale_shift": "scale_shift", "freq_shift": 0}),
    "own groups": (PLAIN, {"attn_norm_num_groups": 4, "time_embedding_dim": 24}),
    "resnets between stages": (PLAIN, {"downsample_type": "resnet", "upsample_type": "resnet"}),
    "random frequencies": (PLAIN, {"time_embedding_type": "fourier"}),
    "time table": (PLAIN, {"time_embedding_type": "learned", "num_train_timesteps": 1000}),
    "no attention": (PLAIN, {
        "add_attention": False, "layers_per_block": 2,
        "down_block_types": ("DownBlock2D", "ResnetDownsampleBlock2D"),
        "up_block_types": ("ResnetUpsampleBlock2D", "UpBlock2D"),
    }),
    "same widths": (PLAIN, {"block_out_channels": (16, 16)}),
    "text": (TEXT, {}),
    "text, less of each head": (TEXT, {
        "block_out_channels": (24, 48), "norm_num_groups": 4, "attention_head_dim": 3,
    }),
    "no mid block": (TEXT, {"mid_block_type": None, "time_cond_proj_dim": 12}),
    "only text": (TEXT, {"only_cross_attention": True}),
    "sdxl": (TEXT, XL),
}  # fmt: skip


REAL = [
    # teacher, width; channels, norm groups, heads of the student
    (SD15, 0.25, (80, 160, 320, 320), 16, 2),
    (SD15, 0.1, (32, 64, 128, 128), 8, 8),
    (SD15, 0.75, (256, 480, 960, 960), 32, (8, 6, 6, 6)),
    (SD21, 0.5, (160, 320, 640, 640), 32, (5, 5, 10, 10)),
    (SDXL, 0.5, (160, 320, 640), 32, (5, 5, 10)),
]


def output_of(family, model):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        noisy, timesteps, conditions = family.example(model.config, batch=2)
    conditions = {
        n: c.to(model.dtype) if c.is_floating_point() else c for n, c in conditions.items()
    }
    return family.predict(model, noisy.to(model.dtype), timesteps, conditions)


def as_lists(indices):
    return {name: kept.tolist() for name, kept in indices.items()}


@pytest.mark.parametrize("case", HALVES)
def test_a_teacher_with_an_idle_half_and_its_student_compute_the_same(case):
    name, changes = HALVES[case]
    family = families()[name]
    config = TINY[name] | changes
    groups = config["norm_num_groups"]  # with fewer, a group is not one of the teacher's
    teacher, expected, kept = idle_twin(family, config, 0.5, norm_num_groups=groups)
    student_config = family.narrow_config(teacher.config, 0.5, groups)
    student, indices = inherit(teacher, family, student_config, scores=magnitude(teacher))
    assert as_lists(indices) == as_lists(kept)
    for weight, (name, other) in zip(
        student.parameters(), expected.named_parameters(), strict=True
    ):
        torch.testing.assert_close(weight, other, msg=name)
    with torch.no_grad():
        torch.testing.assert_close(output_of(family, student.eval()), output_of(family, teacher))


def test_taylor_importance_finds_the_idle_half_where_no_norm_mixes_it():
    family = families()[TEXT]
    teacher, _, kept = idle_twin(family, TINY[TEXT], 0.5)
    scores = taylor(teacher, [output_of(family, teacher).square().mean()])
    _, indices = narrow(teacher, family, 0.5, scores=scores)
    unmixed = [
        n for n in kept if n.endswith((".heads", ".hidden")) or n == "time_embedding.linear_1"
    ]
    assert len(unmixed) == 1 + 6 * 3  # six transformers with two attentions and a feed-forward
    for name in unmixed:
        assert torch.equal(indices[name], kept[name]), name


@pytest.mark.parametrize("name", [PLAIN, TEXT])
@pytest.mark.parametrize("width", [0.25, 0.75])
def test_a_student_of_any_width_is_a_plain_diffusers_model(name, width, tmp_path):
    family, teacher = families()[name], tiny_model(name).to(torch.bfloat16)
    student, _ = narrow(teacher, family, width, scores=magnitude(teacher))
    assert student.dtype == torch.bfloat16
    student.save_pretrained(tmp_path)
    loaded = family.model_class.from_pretrained(tmp_path)
    assert loaded.config.block_out_channels == [int(16 * width), int(32 * width)]
    assert loaded.config.norm_num_groups == {0.25: 2, 0.75: 4}[width]  # two a group, or more
    output = output_of(family, loaded)
    output.square().mean().backward()
    assert output.shape == (2, family.out_channels(loaded.config), 8, 8)
    assert all(weight.grad.isfinite().all() for weight in loaded.parameters())


def test_the_whole_width_is_the_teacher_and_shares_no_memory_with_it():
    family, teacher = families()[PLAIN], tiny_model(PLAIN)
    student, _ = narrow(teacher, family, 1.0, scores={})
    for weight, other in zip(student.parameters(), teacher.parameters(), strict=True):
        assert torch.equal(weight, other)
        assert weight.data_ptr() != other.data_ptr()


def test_the_global_generator_is_left_alone():
    teacher = tiny_model(PLAIN)
    before = torch.get_rng_state()
    narrow(teacher, families()[PLAIN], 0.5, scores={})
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("config, width, channels, groups, heads", REAL)
def test_real_models_narrow(config, width, channels, groups, heads):
    family = families()[TEXT]
    teacher = family.skeleton(config)
    narrow_config = family.narrow_config(teacher.config, width)
    assert narrow_config["block_out_channels"] == channels
    assert narrow_config["norm_num_groups"] == groups
    assert narrow_config["attention_head_dim"] == heads
    graph = family.channel_graph(teacher, narrow_config)
    # Fails where a weight's axis is not cut to the student's.
    sliced(teacher, family.skeleton(narrow_config), graph, graph.indices({}))


@pytest.mark.parametrize("width", [0, -0.5, 1.5, float("nan")])
def test_width_is_a_share(width):
    with pytest.raises(UsageError, match="width must be more than 0 and at most 1"):
        narrow(tiny_model(PLAIN), families()[PLAIN], width, scores={})
