import pytest
import torch
from diffusers import FluxPipeline

from liftplace.common.errors import UsageError
from liftplace.families import families, family_of, family_of_model
from liftplace.families.family import split_variance
from tests.families.tiny import TINY, tiny_model

XL = {
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 4,
    "projection_class_embeddings_input_dim": 6 * 4 + 16,
}
VARIANTS = {
    **{name: (name, {}) for name in TINY},
    "with classes": ("UNet2DModel", {"num_class_embeds": 10}),
    "SDXL": ("UNet2DConditionModel", XL),
    "by size": (
        "PixArtTransformer2DModel",
        {"use_additional_conditions": True, "attention_head_dim": 12, "cross_attention_dim": 24},
    ),
    "guided": ("FluxTransformer2DModel", {"guidance_embeds": True}),
}


def test_every_family_is_found():
    assert set(families()) == set(TINY)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_call_gives_output_and_blocks(variant):
    class_name, changes = VARIANTS[variant]
    model = tiny_model(class_name, **changes).eval()
    family = family_of_model(model)
    assert family_of({"_class_name": class_name, **TINY[class_name], **changes}) is family
    noisy, timesteps, conditions = family.example(model.config, batch=2)
    seen = {}
    for name, block in family.blocks(model).items():
        assert model.get_submodule(name) is block
        block.register_forward_hook(
            lambda module, inputs, output, name=name: seen.update(
                {name: family.block_output(output)}
            )
        )
    output = family.predict(model, noisy, timesteps, conditions)
    assert output.shape == (2, family.out_channels(model.config), *noisy.shape[2:])
    assert list(seen) == list(family.blocks(model))  # in the order of the forward pass
    assert all(hidden.shape[0] == 2 and hidden.dim() in (3, 4) for hidden in seen.values())
    for name, value in conditions.items():  # every condition counts
        changed = conditions | {name: _other(value)}
        assert not torch.equal(family.predict(model, noisy, timesteps, changed), output), name


def _other(value):
    if value.dim() == 2 and set(value.unique().tolist()) == {1.0}:  # a mask, or an aspect ratio
        return torch.cat([value[:, :-1], torch.zeros_like(value[:, -1:])], dim=1)
    return (value + 1) % 10 if value.dtype == torch.int64 else value * 1.5 + 1


def test_labels_are_not_dropped_at_random_in_training():
    model = tiny_model("DiTTransformer2DModel").train()
    family = family_of_model(model)
    family.prepare_training(model)
    noisy, timesteps, conditions = family.example(model.config, batch=16)
    first, second = (family.predict(model, noisy, timesteps, conditions) for _ in range(2))
    assert torch.equal(first, second)
    empty = {"class_labels": torch.full((16,), family.null_class(model.config))}
    assert not torch.equal(family.predict(model, noisy, timesteps, empty), first)


def test_flux_packs_as_its_pipeline():
    model = tiny_model("FluxTransformer2DModel").eval()
    family = family_of_model(model)
    noisy, timesteps, conditions = family.example(model.config, batch=2, size=8)
    packed = FluxPipeline._pack_latents(noisy, 2, 4, 8, 8)
    places = FluxPipeline._prepare_latent_image_ids(2, 4, 4, "cpu", torch.float32)
    output = model(
        packed, timestep=timesteps / 1000, img_ids=places, txt_ids=torch.zeros(8, 3), **conditions
    ).sample
    expected = FluxPipeline._unpack_latents(output, 8, 8, 1)
    torch.testing.assert_close(family.predict(model, noisy, timesteps, conditions), expected)


def test_variance_is_split_off():
    output = torch.randn(2, 6, 4, 4)
    prediction, variance = split_variance(output, 3)
    assert torch.equal(torch.cat([prediction, variance], dim=1), output)
    assert split_variance(output, 6)[1] is None


@pytest.mark.parametrize(
    ("class_name", "changes", "message"),
    [
        ("UNet2DModel", {"out_channels": 4}, "has out_channels 4 and in_channels 3: need the same"),
        ("UNet2DModel", {"sample_size": (8, 16)}, r"has sample_size \(8, 16\): need one number"),
        ("UNet2DModel", {"class_embed_type": "timestep"}, "has class_embed_type timestep"),
        (
            "UNet2DModel",
            {"time_embedding_type": "fourier"},
            "has time_embedding_type fourier: it is",
        ),
        ("UNet2DConditionModel", {"in_channels": 9}, "has out_channels 4 and in_channels 9"),
        ("UNet2DConditionModel", {"addition_embed_type": "image"}, "has addition_embed_type image"),
        ("UNet2DConditionModel", {"num_class_embeds": 3}, "has num_class_embeds 3, an input"),
        ("UNet2DConditionModel", {"time_cond_proj_dim": 16}, "has time_cond_proj_dim 16, an input"),
    ],
)
def test_models_that_cannot_be_trained(class_name, changes, message):
    config = {"_class_name": class_name, **TINY[class_name], **changes}
    with pytest.raises(UsageError, match=f"^here {message}"):
        family_of(config, "here")


def test_class_without_a_family():
    with pytest.raises(
        UsageError, match="here is a AutoencoderKL, which is not supported: need on"
    ):
        family_of({"_class_name": "AutoencoderKL"}, "here")
    with pytest.raises(UsageError, match="here is a model of unknown class"):
        family_of({}, "here")


def test_a_square_sample_size_may_stand_twice():
    (family,) = (each for name, each in families().items() if name == "UNet2DModel")
    assert family.sample_size({"sample_size": [8, 8]}) == 8
    config = {"_class_name": "UNet2DModel", **TINY["UNet2DModel"], "sample_size": [8, 8]}
    assert family_of(config) is family


@pytest.mark.parametrize("name", sorted(TINY))
def test_the_output_depends_on_every_weight(name):
    model = tiny_model(name)
    assert family_of_model(model).unused_weights(model.config) == []


def test_weights_of_an_input_that_is_not_given_are_found():
    model = tiny_model("UNet2DConditionModel", time_cond_proj_dim=16)
    unused = family_of_model(model).unused_weights(model.config)
    assert unused == ["time_embedding.cond_proj.weight"]
