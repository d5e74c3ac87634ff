import json
import shutil
from types import SimpleNamespace

import diffusers
import pytest
import torch
from safetensors.torch import load_file, save_file

from liftplace.common.errors import UsageError
from liftplace.data.encoder import Encoder
from liftplace.models.loading import load_model
from tests.families.pipelines import PIPELINES, tiny_pipeline
from tests.families.tiny import tiny_model

TEXT = [name for name in PIPELINES if name not in ("UNet2DModel", "DiTTransformer2DModel")]
LATENT = [name for name in PIPELINES if name != "UNet2DModel"]
CAPTIONS = ["a red cat", "two dogs 2"]
WEIGHTS = "diffusion_pytorch_model.safetensors"


def images(count, seed=0):
    return torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def dataset_of(**changes):
    """What an encoder asks of a dataset."""
    return SimpleNamespace(
        **{"channels": 3, "classes": None, "has_captions": True, "captions": list} | changes
    )


@pytest.mark.parametrize("name", LATENT)
def test_latents_are_drawn_from_the_posterior_and_scaled_as_in_the_pipeline(name, encoders):
    encoder = encoders(name)
    vae, pixels = encoder.vae, images(3)
    noise = torch.randn(3, *encoder.shape, generator=torch.Generator().manual_seed(1))
    latents = encoder.latents({"images": pixels}, noise)
    posterior = vae.encode(pixels).latent_dist
    drawn = posterior.mean + posterior.std * noise
    expected = (drawn - (vae.config.shift_factor or 0)) * vae.config.scaling_factor
    assert latents.shape == (3, *encoder.shape) and not latents.requires_grad
    torch.testing.assert_close(latents, expected)
    apart = [encoder.latents({"images": pixels[i : i + 1]}, noise[i : i + 1]) for i in range(3)]
    torch.testing.assert_close(torch.cat(apart), latents)


@pytest.mark.parametrize("name", LATENT)
def test_decoding_undoes_the_scaling(name, encoders):
    encoder = encoders(name)
    mean = encoder.vae.encode(images(2)).latent_dist.mean
    expected = encoder.vae.decode(mean).sample
    decoded = encoder.decode(encoder.latents({"images": images(2)}))
    torch.testing.assert_close(decoded, expected, atol=1e-5, rtol=1e-5)


def test_latents_of_a_vqvae_are_those_of_the_ldm_pipeline(tmp_path):
    vqvae = diffusers.VQModel(
        latent_channels=3, num_vq_embeddings=16, sample_size=16, block_out_channels=(4, 8),
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=4, scaling_factor=0.5,
    ).eval()  # fmt: skip
    unet = tiny_model("UNet2DModel")
    scheduler = diffusers.DDIMScheduler(clip_sample=False)
    diffusers.LDMPipeline(vqvae, unet, scheduler).save_pretrained(tmp_path)
    encoder = Encoder(load_model(tmp_path))
    assert encoder.shape == (3, 8, 8) and encoder.resolution == 16
    with torch.no_grad():
        expected = vqvae.encode(images(2)).latents * 0.5
        decoded = vqvae.decode(expected / 0.5).sample  # as LDMPipeline does
    latents = encoder.latents({"images": images(2)}, torch.ones(2, 3, 8, 8))
    torch.testing.assert_close(latents, expected)
    torch.testing.assert_close(encoder.decode(latents), decoded)
    assert encoder.fingerprint["vae"]


def test_latents_are_centred_by_channel_where_the_vae_says_so(tmp_path):
    mean, deviation = [1.0, -2.0, 0.5, 0.0], [4.0, 5.0, 6.0, 3.0]
    folders = [tiny_pipeline("DiTTransformer2DModel", tmp_path / name) for name in ("plain", "new")]
    file = folders[1] / "vae" / "config.json"
    changes = {"latents_mean": mean, "latents_std": deviation}
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    plain, centred = (Encoder(load_model(folder)) for folder in folders)
    pixels, scale = {"images": images(2)}, plain.vae.config.scaling_factor
    mean, deviation = (torch.tensor(each).view(1, 4, 1, 1) for each in (mean, deviation))
    expected = (plain.latents(pixels) / scale - mean) * scale / deviation
    torch.testing.assert_close(centred.latents(pixels), expected)
    decoded = [each.decode(each.latents(pixels)) for each in (plain, centred)]
    torch.testing.assert_close(*decoded, atol=1e-5, rtol=1e-5)
    assert plain.fingerprint != centred.fingerprint


def heard_by_the_model(folder, captions):
    """What the stock pipeline tells its denoising model."""
    pipeline = diffusers.DiffusionPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    model = getattr(pipeline, "unet", None) or pipeline.transformer
    heard = {}

    def listen(module, arguments, named):
        heard.update(named | (named.get("added_cond_kwargs") or {}))

    model.register_forward_pre_hook(listen, with_kwargs=True)
    options = {"use_resolution_binning": False} if "PixArt" in type(pipeline).__name__ else {}
    pipeline(captions, height=16, width=16, num_inference_steps=2, output_type="latent", **options)
    return heard


@pytest.mark.parametrize("name", TEXT)
def test_conditions_are_what_the_stock_pipeline_tells_the_model(name, encoders, pipelines):
    encoder = encoders(name)
    heard = heard_by_the_model(pipelines(name), CAPTIONS)
    conditions = encoder.conditions({"captions": CAPTIONS})
    empty = encoder.null_conditions(2)
    assert conditions.keys() == empty.keys()
    for key, value in conditions.items():
        told = heard[key].float()
        if len(told) == 4:  # with classifier-free guidance: without captions, then with
            torch.testing.assert_close(empty[key], told[:2])
        torch.testing.assert_close(value, told[-2:])


def test_classes(encoders):
    encoder = encoders("DiTTransformer2DModel")
    assert (encoder.takes_labels, encoder.takes_captions) == (True, False)
    labels = torch.tensor([3, 9])
    told = encoder.conditions({"images": images(2), "class_labels": labels})
    assert told.keys() == {"class_labels"} and torch.equal(told["class_labels"], labels)
    assert encoder.null_conditions(2)["class_labels"].tolist() == [10, 10]


def test_pixels_stay_what_they_are(pipelines):
    encoder = Encoder(load_model(pipelines("UNet2DModel")))
    assert encoder.shape == (3, 8, 8) and encoder.resolution == 8
    pixels = images(2)
    assert encoder.latents({"images": pixels}) is pixels
    assert encoder.conditions({"images": pixels}) == {}
    assert encoder.decode(pixels) is pixels
    assert encoder.fingerprint == {"vae": None, "text": None}


def test_model_without_a_label_for_no_class(tmp_path):
    folder = tiny_pipeline("UNet2DModel", tmp_path, num_class_embeds=10)
    encoder = Encoder(load_model(folder))
    encoder.check(dataset_of(classes=tuple("0123456789")))
    with pytest.raises(UsageError, match="no label for no class: leave --conditioning_dropout"):
        encoder.null_conditions(2)


def test_sd3_without_its_third_text_encoder(tmp_path):
    folder = tiny_pipeline("SD3Transformer2DModel", tmp_path)
    full = diffusers.DiffusionPipeline.from_pretrained(
        folder, text_encoder_3=None, tokenizer_3=None
    )
    full.save_pretrained(tmp_path / "less")
    encoder = Encoder(load_model(tmp_path / "less"))
    expected, _, _, _ = full.encode_prompt(CAPTIONS, None, None, do_classifier_free_guidance=False)
    told = encoder.conditions({"captions": CAPTIONS})
    torch.testing.assert_close(told["encoder_hidden_states"], expected)


def test_low_precision_gives_float32(pipelines):
    encoder = Encoder(load_model(pipelines("PixArtTransformer2DModel")))
    exact = encoder.conditions({"captions": CAPTIONS})
    encoder.to("cpu", torch.float16)
    assert encoder.vae.dtype == torch.float32  # force_upcast
    encoder.to("cpu", torch.bfloat16)
    assert encoder.vae.dtype == torch.bfloat16
    told = encoder.conditions({"captions": CAPTIONS})
    assert {value.dtype for value in told.values()} == {torch.float32}
    assert encoder.latents({"images": images(1)}).dtype == torch.float32
    for name, value in told.items():
        torch.testing.assert_close(value, exact[name], atol=0.1, rtol=0.1)
        assert name == "encoder_attention_mask" or not torch.equal(value, exact[name])


# Bad input


def test_vae_of_another_model(tmp_path):
    tiny_pipeline("DiTTransformer2DModel", tmp_path, in_channels=3, out_channels=6)
    with pytest.raises(UsageError, match="its VAE makes latents of 4 channels, but .* takes 3"):
        Encoder(load_model(tmp_path))


@pytest.mark.parametrize("damage", ["class", "weight", "file"])
def test_vae_that_cannot_be_read(tmp_path, damage):
    folder = tiny_pipeline("DiTTransformer2DModel", tmp_path)
    if damage == "class":
        diffusers.AutoencoderTiny().save_pretrained(folder / "vae")
    if damage == "weight":
        weights = load_file(folder / "vae" / WEIGHTS)
        del weights["decoder.conv_in.bias"]
        save_file(weights, folder / "vae" / WEIGHTS)
    if damage == "file":
        (folder / "vae" / WEIGHTS).write_bytes(b"12345678")
    with pytest.raises(UsageError, match=r"vae.*") as caught:
        Encoder(load_model(folder))
    assert "\n" not in str(caught.value) and str(folder / "vae") in str(caught.value)


@pytest.mark.parametrize(
    ("name", "resolution", "message"),
    [
        ("DiTTransformer2DModel", 32, "--resolution is 32, but .* works at 16"),
        ("DiTTransformer2DModel", 17, "--resolution is 17, but .* a multiple of 2"),
        ("FluxTransformer2DModel", 18, "--resolution is 18, but .* a multiple of 4"),
        ("FluxTransformer2DModel", None, "--resolution is missing"),
    ],
)
def test_resolution_that_does_not_fit(name, resolution, message, pipelines):
    with pytest.raises(UsageError, match=message):
        Encoder(load_model(pipelines(name)), resolution)


def test_dataset_that_does_not_fit(encoders):
    dit, sd = encoders("DiTTransformer2DModel"), encoders("UNet2DConditionModel")
    sd.check(dataset_of())
    dit.check(dataset_of(classes=tuple("0123456789"), has_captions=False))
    with pytest.raises(UsageError, match="the images have 1 channels, but .* takes 3"):
        sd.check(dataset_of(channels=1))
    with pytest.raises(UsageError, match="takes captions, but the dataset has none"):
        sd.check(dataset_of(has_captions=False))
    with pytest.raises(UsageError, match="takes class labels, but the dataset has none"):
        dit.check(dataset_of())
    with pytest.raises(UsageError, match="the dataset has 2 classes, but .* was made for 10"):
        dit.check(dataset_of(classes=("cat", "dog")))


def test_bare_model_of_latents_or_captions(pipelines, tmp_path):
    shutil.copytree(pipelines("DiTTransformer2DModel") / "transformer", tmp_path / "dit")
    dit = load_model(tmp_path / "dit")
    with pytest.raises(UsageError, match="takes 4 of latents and has no VAE: give the whole"):
        Encoder(dit).check(dataset_of())
    shutil.copytree(pipelines("UNet2DConditionModel"), tmp_path / "sd")
    (tmp_path / "sd" / "model_index.json").unlink()
    with pytest.raises(UsageError, match=r"no model_index\.json: captions need the folder"):
        Encoder(load_model(tmp_path / "sd")).check(dataset_of())


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("UNet2DConditionModel", {"cross_attention_dim": 16}, "of width 24, but its unet takes 16"),
        ("SD3Transformer2DModel", {"joint_attention_dim": 32}, "of width 24, .* takes 32"),
        ("FluxTransformer2DModel", {"pooled_projection_dim": 12}, "of width 20, .* takes 12"),
    ],
)
def test_text_encoder_of_another_model(tmp_path, name, changes, message):
    encoder = Encoder(load_model(tiny_pipeline(name, tmp_path, **changes)), 16)
    with pytest.raises(UsageError, match=message):
        encoder.check(dataset_of())


def test_fingerprint_changes_with_what_results_depend_on(pipelines, tmp_path):
    def fingerprint(folder):
        return Encoder(load_model(folder)).fingerprint

    same = fingerprint(pipelines("UNet2DConditionModel"))
    other = fingerprint(tiny_pipeline("UNet2DConditionModel", tmp_path / "other", seed=1))
    assert other["vae"] != same["vae"] and other["text"] != same["text"]
    shutil.copytree(pipelines("UNet2DConditionModel"), tmp_path / "copy")
    assert fingerprint(tmp_path / "copy") == same
    config = json.loads((tmp_path / "copy" / "vae" / "config.json").read_text())
    (tmp_path / "copy" / "vae" / "config.json").write_text(
        json.dumps(config | {"scaling_factor": 0.5})
    )
    changed = fingerprint(tmp_path / "copy")
    assert changed["vae"] != same["vae"] and changed["text"] == same["text"]
