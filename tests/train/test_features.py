import pytest
import torch
import torch.nn.functional as F
from torch import nn

from liftplace.common.errors import UsageError
from liftplace.families import families
from liftplace.train.features import (
    Pair,
    StudentWithAdapters,
    block_shapes,
    by_position,
    choose_pairs,
    feature_loss,
    match_features,
    resize,
)
from liftplace.train.hooked_model import HookedModel
from tests.families.tiny import tiny_model

SMALLER = {
    "UNet2DModel": {"block_out_channels": (8, 16)},
    "UNet2DConditionModel": {"block_out_channels": (8, 16)},
    "DiTTransformer2DModel": {"num_attention_heads": 1, "num_layers": 2},
    "PixArtTransformer2DModel": {
        "num_attention_heads": 1,
        "num_layers": 2,
        "cross_attention_dim": 8,
    },
    "SD3Transformer2DModel": {
        "num_attention_heads": 1,
        "num_layers": 2,
        "caption_projection_dim": 8,
    },
    "FluxTransformer2DModel": {"num_attention_heads": 1, "num_layers": 1, "num_single_layers": 2},
}


def matched(name, *, always=False, **changes):
    student, teacher = tiny_model(name, seed=1, **changes), tiny_model(name)
    pairs = choose_pairs(student, teacher)
    return student, teacher, match_features(student, teacher, pairs, seed=0, always=always)


@pytest.mark.parametrize("name", families())
def test_features_of_every_family(name):
    student, teacher, match = matched(name, **SMALLER[name])
    inputs = families()[name].example(teacher.config, batch=2)
    trainee = StudentWithAdapters(student, match)
    answer = trainee(*inputs)
    with torch.no_grad():
        asked = HookedModel(teacher, [pair.teacher for pair in match.pairs])(*inputs)
    assert list(answer.features) == list(match.pairs)
    for pair, hidden in answer.features.items():
        assert hidden.shape == asked.features[pair.teacher].shape
    assert len(match.pairs) == len(families()[name].blocks(student))
    assert not any(isinstance(adapter, nn.Identity) for adapter in match.adapters)
    loss = feature_loss((answer.features[p], asked.features[p.teacher]) for p in match.pairs)
    loss.backward()
    assert all(w.grad is not None and w.grad.any() for w in match.adapters.parameters())
    first = next(iter(families()[name].blocks(student).values()))
    assert any(w.grad is not None and w.grad.any() for w in first.parameters())


@pytest.mark.parametrize("name", families())
def test_shapes_are_those_of_the_forward_pass(name):
    model = tiny_model(name)
    blocks = list(families()[name].blocks(model))
    answer = HookedModel(model, blocks)(*families()[name].example(model.config))
    assert block_shapes(model, blocks) == {n: h.shape for n, h in answer.features.items()}
    assert all(weight.device.type == "cpu" for weight in model.parameters())


def test_what_is_seen_is_the_block_s_output():
    model = tiny_model("DiTTransformer2DModel")
    inputs = families()["DiTTransformer2DModel"].example(model.config)
    answer = HookedModel(model, ["transformer_blocks.1"])(*inputs)
    assert list(answer.features) == ["transformer_blocks.1"]
    del model.transformer_blocks[2:]  # then the last block's output is what the head reads
    seen = []
    model.norm_out.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    families()["DiTTransformer2DModel"].predict(model, *inputs)
    assert torch.equal(answer.features["transformer_blocks.1"], seen[0])


def test_output_and_variance_are_split():
    model = tiny_model("DiTTransformer2DModel")
    inputs = families()["DiTTransformer2DModel"].example(model.config)
    answer = HookedModel(model)(*inputs)
    both = families()["DiTTransformer2DModel"].predict(model, *inputs)
    assert torch.equal(torch.cat([answer.output, answer.variance], dim=1), both)


@pytest.mark.parametrize("name", ["UNet2DModel", "SD3Transformer2DModel"])
def test_gradient_checkpointing_changes_nothing(name):
    gradients = []
    for checkpointing in (False, True):
        student, teacher, match = matched(name, **SMALLER[name])
        trainee = StudentWithAdapters(student, match).train()
        if checkpointing:
            student.enable_gradient_checkpointing()
        torch.manual_seed(0)
        answer = trainee(*families()[name].example(teacher.config, batch=2))
        targets = [torch.zeros_like(hidden) for hidden in answer.features.values()]
        feature_loss(zip(answer.features.values(), targets, strict=True)).backward()
        gradients.append([w.grad for w in trainee.parameters() if w.grad is not None])
    assert len(gradients[0]) == len(gradients[1]) > 0
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


def test_a_compiled_student_gives_the_same_features():
    changes = {"num_attention_heads": 1, "num_layers": 1}
    student, teacher, match = matched("DiTTransformer2DModel", **changes)
    inputs = families()["DiTTransformer2DModel"].example(teacher.config, batch=2)
    trainee = StudentWithAdapters(student, match)
    plain = trainee(*inputs)
    trainee.compile(backend="eager")
    for _ in range(2):  # the second call runs what the first compiled
        answer = trainee(*inputs)
        assert answer.features.keys() == plain.features.keys()
        for pair, hidden in answer.features.items():
            torch.testing.assert_close(hidden, plain.features[pair])


def test_no_adapter_where_shapes_agree_unless_asked():
    _, _, match = matched("UNet2DModel")
    assert all(isinstance(adapter, nn.Identity) for adapter in match.adapters)
    _, _, match = matched("UNet2DModel", always=True)
    assert {type(adapter) for adapter in match.adapters} == {nn.Conv2d}
    assert all(adapter.kernel_size == (1, 1) for adapter in match.adapters)


def test_the_seed_makes_the_adapters():
    one, other = (matched("UNet2DModel", always=True)[2].adapters for _ in range(2))
    assert all(map(torch.equal, one.parameters(), other.parameters()))


def layers(count):
    return [f"transformer_blocks.{i}" for i in range(count)]


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [(2, 4, [1, 3]), (4, 4, [0, 1, 2, 3]), (3, 8, [2, 5, 7]), (1, 5, [4]), (3, 2, [0, 1, 1])],
)
def test_by_position(ours, theirs, expected):
    pairs = by_position(layers(ours), layers(theirs))
    assert pairs == tuple(Pair(layers(9)[i], layers(9)[j]) for i, j in enumerate(expected))


def test_by_position_keeps_to_the_kind():
    ours = ["down_blocks.0", "up_blocks.0"]
    theirs = ["down_blocks.0", "down_blocks.1", "mid_block", "up_blocks.0", "up_blocks.1"]
    assert by_position(ours, theirs) == (
        Pair("down_blocks.0", "down_blocks.1"),
        Pair("up_blocks.0", "up_blocks.1"),
    )
    with pytest.raises(UsageError, match="the teacher has no block like the student's mid_block"):
        by_position(["mid_block"], ours)


def test_pairs_are_chosen_or_mapped_or_by_position():
    student = tiny_model("DiTTransformer2DModel", num_layers=2)
    teacher = tiny_model("DiTTransformer2DModel")
    names = layers(4)
    layer_map = {names[0]: names[0], names[1]: names[2], "elsewhere": "x"}
    assert choose_pairs(student, teacher, (f"{names[1]}:{names[3]}", names[0]), layer_map) == (
        Pair(names[1], names[3]),
        Pair(names[0], names[0]),
    )
    mapped = (Pair(names[0], names[0]), Pair(names[1], names[2]))
    assert choose_pairs(student, teacher, (), layer_map) == mapped
    by_depth = (Pair(names[0], names[1]), Pair(names[1], names[3]))
    assert choose_pairs(student, teacher) == by_depth
    assert choose_pairs(student, teacher, ("by_position",), layer_map) == by_depth


def test_a_block_that_is_none_is_refused():
    model = tiny_model("UNet2DModel")
    with pytest.raises(UsageError, match="the UNet2DModel has no block mid; it has down_blocks.0"):
        match_features(model, model, [Pair("mid", "mid_block")], seed=0, always=False)


def test_maps_against_tokens_are_refused():
    unet, dit = tiny_model("UNet2DModel"), tiny_model("DiTTransformer2DModel")
    with pytest.raises(UsageError, match="both must be maps or both tokens"):
        pair = Pair("mid_block", "transformer_blocks.0")
        match_features(unet, dit, [pair], seed=0, always=False)


def hidden_states(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(3, 4, 8, 8), (3, 16, 5)])
def test_loss_is_the_sum_over_pairs_of_the_mean_squared_error(shape):
    pairs = [(hidden_states(*shape), hidden_states(*shape, seed=n)) for n in (1, 2)]
    mean = feature_loss(pairs)
    torch.testing.assert_close(mean, sum(F.mse_loss(*pair) for pair in pairs))
    elements = pairs[0][0][0].numel()
    torch.testing.assert_close(feature_loss(pairs, reduction="sum"), mean * elements)


def test_massive_activations_are_left_out_of_the_masked_loss():
    student, teacher = hidden_states(2, 50, 8), hidden_states(2, 50, 8, seed=1)
    student[0, 3, 2], teacher[1, 7, 5] = 400.0, -500.0
    student.requires_grad_()
    loss = feature_loss([(student, teacher)], mask=4.0)
    kept = torch.ones_like(teacher, dtype=torch.bool)
    kept[0, 3, 2] = kept[1, 7, 5] = False
    error = (student - teacher).square()
    by_hand = sum(error[i][kept[i]].mean() for i in range(2)) / 2
    torch.testing.assert_close(loss, by_hand)
    (gradient,) = torch.autograd.grad(loss, student)
    assert gradient[kept].all() and not gradient[~kept].any()
    total = feature_loss([(student, teacher)], mask=4.0, reduction="sum")
    torch.testing.assert_close(total, error[kept].sum() / 2)


def test_the_masked_loss_does_not_depend_on_how_a_batch_is_split():
    student, teacher = hidden_states(4, 50, 8) ** 3, hidden_states(4, 50, 8, seed=1) ** 3
    whole = feature_loss([(student, teacher)], mask=1.0)
    halves = [feature_loss([(student[h], teacher[h])], mask=1.0) for h in (slice(2), slice(2, 4))]
    torch.testing.assert_close(whole, sum(halves) / 2)
    assert whole < 0.5 * feature_loss([(student, teacher)])


def test_resizing_averages_down_and_repeats_up():
    fine = hidden_states(1, 3, 8, 8)
    coarse = resize(fine, torch.Size([1, 7, 4, 4]))
    torch.testing.assert_close(coarse, F.avg_pool2d(fine, 2))
    back = resize(coarse, fine.shape)
    torch.testing.assert_close(back, coarse.repeat_interleave(2, 2).repeat_interleave(2, 3))
    tokens = resize(fine.flatten(2).transpose(1, 2), torch.Size([1, 16, 9]))
    torch.testing.assert_close(tokens, coarse.flatten(2).transpose(1, 2))


def test_low_precision_teachers_are_compared_in_float32():
    student, teacher = hidden_states(2, 4, 3), hidden_states(2, 4, 3, seed=1).bfloat16()
    loss = feature_loss([(student, teacher)])
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, F.mse_loss(student, teacher.float()))
