"""What is fetched of a repository, on listings of real ones."""

import pytest
from diffusers.pipelines.pipeline_loading_utils import variant_compatible_siblings

from liftplace.common.errors import UsageError
from liftplace.models.hub import files_to_read, local_folder, pipeline_parts

FORMATS = ("bin", "safetensors", "fp16.bin", "fp16.safetensors")
TOKENIZER = ["merges.txt", "special_tokens_map.json", "tokenizer_config.json", "vocab.json"]
LISTINGS = {
    "stable-diffusion-v1-5/stable-diffusion-v1-5": [
        "model_index.json", "v1-5-pruned.ckpt", "v1-5-pruned.safetensors", "v1-inference.yaml",
        "v1-5-pruned-emaonly.ckpt", "v1-5-pruned-emaonly.safetensors", "README.md",
        "feature_extractor/preprocessor_config.json", "scheduler/scheduler_config.json",
        *(f"{part}/config.json" for part in ("safety_checker", "text_encoder", "unet", "vae")),
        *(f"{part}/{'pytorch_' * ('bin' in end)}model.{end}"
          for part in ("safety_checker", "text_encoder") for end in FORMATS),
        *(f"{part}/diffusion_pytorch_model.{end}" for part in ("unet", "vae") for end in FORMATS),
        *(f"unet/diffusion_pytorch_model.non_ema.{end}" for end in FORMATS[:2]),
        *(f"tokenizer/{name}" for name in TOKENIZER),
    ],
    "stabilityai/stable-diffusion-xl-base-1.0": [
        "model_index.json", "sd_xl_base_1.0.safetensors", "sd_xl_base_1.0_0.9vae.safetensors",
        "sd_xl_offset_example-lora_1.0.safetensors", "01.png", "scheduler/scheduler_config.json",
        *(f"{part}/{name}" for part in ("text_encoder", "text_encoder_2")
          for name in ("config.json", "model.safetensors", "model.fp16.safetensors", "model.onnx",
                       "flax_model.msgpack", "openvino_model.bin", "openvino_model.xml")),
        *(f"{part}/{name}" for part in ("unet", "vae", "vae_1_0")
          for name in ("config.json", "diffusion_pytorch_model.safetensors",
                       "diffusion_pytorch_model.fp16.safetensors")),
        "unet/model.onnx", "unet/model.onnx_data", "unet/openvino_model.bin",
        *(f"vae_{way}/{name}" for way in ("decoder", "encoder")
          for name in ("config.json", "model.onnx", "openvino_model.xml")),
        *(f"{part}/{name}" for part in ("tokenizer", "tokenizer_2") for name in TOKENIZER),
    ],
    "stabilityai/stable-diffusion-3-medium-diffusers": [
        "model_index.json", "LICENSE.md", "scheduler/scheduler_config.json",
        *(f"{part}/{name}" for part in ("text_encoder", "text_encoder_2")
          for name in ("config.json", "model.safetensors", "model.fp16.safetensors")),
        "text_encoder_3/config.json", "text_encoder_3/model.safetensors.index.json",
        "text_encoder_3/model.safetensors.index.fp16.json",
        *(f"text_encoder_3/model{variant}-0000{n}-of-00002.safetensors"
          for n in (1, 2) for variant in ("", ".fp16")),
        *(f"{part}/{name}" for part in ("transformer", "vae")
          for name in ("config.json", "diffusion_pytorch_model.safetensors")),
        *(f"{part}/{name}" for part in ("tokenizer", "tokenizer_2") for name in TOKENIZER),
        "tokenizer_3/spiece.model", "tokenizer_3/tokenizer.json",
    ],
    "google/ddpm-celebahq-256": [
        "model_index.json", "config.json", "scheduler_config.json", "README.md",
        "diffusion_pytorch_model.bin", "diffusion_pytorch_model.safetensors",
    ],
}  # fmt: skip
PARTS = {
    "stable-diffusion-v1-5/stable-diffusion-v1-5": (
        "feature_extractor", "safety_checker", "scheduler", "text_encoder", "tokenizer", "unet",
        "vae",
    ),
    "stabilityai/stable-diffusion-xl-base-1.0": (
        "scheduler", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "unet", "vae",
    ),
    "stabilityai/stable-diffusion-3-medium-diffusers": (
        "scheduler", "text_encoder", "text_encoder_2", "text_encoder_3", "tokenizer",
        "tokenizer_2", "tokenizer_3", "transformer", "vae",
    ),
    "google/ddpm-celebahq-256": ("scheduler", "unet"),
}  # fmt: skip


@pytest.mark.parametrize("variant", [None, "fp16"])
@pytest.mark.parametrize("name", LISTINGS)
def test_weights_are_those_that_diffusers_would_fetch(name, variant):
    files = LISTINGS[name]
    if variant and not any(variant in file for file in files):
        return  # which diffusers does not take
    found = set(files_to_read(files, PARTS[name], variant, name))
    in_parts = [file for file in files if file.split("/")[0] in PARTS[name] or "/" not in file]
    theirs, _ = variant_compatible_siblings(in_parts, variant, ["*.bin", "*.onnx", "*.msgpack"])
    weights = {file for file in found if "model." in file or "model-" in file}
    weights -= {file for file in weights if file.endswith("spiece.model")}
    assert weights == theirs
    # And beside the weights whatever a part is read from, but nothing of other programs.
    small = (".json", ".txt", "spiece.model")
    others = {file for file in in_parts if file.endswith(small) and ".index." not in file}
    assert found - weights == others
    assert not any(file.startswith(("vae_", "v1-5", "sd_xl")) for file in found)


def test_an_fp16_only_repository_needs_no_flag():
    files = ["unet/config.json", "unet/diffusion_pytorch_model.fp16.safetensors"]
    assert files_to_read(files, ["unet"], None, "here") == files


def test_a_safety_checker_that_must_be_unpickled_is_left_out():
    files = ["safety_checker/config.json", "safety_checker/pytorch_model.bin", "unet/config.json"]
    assert files_to_read(files, ["safety_checker", "unet"], None, "here") == ["unet/config.json"]


def test_parts_that_are_not_there_are_not_fetched():
    index = {"_class_name": "X", "unet": ["diffusers", "U"], "safety_checker": [None, None]}
    assert pipeline_parts(index) == ["unet"]


def test_the_revision_is_named_where_it_cannot_be_had(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UsageError, match="no such model of revision v2 was loaded from"):
        local_folder("some/model", "v2")


def test_what_was_fetched_before_is_found_without_a_network(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    snapshot = tmp_path / "models--some--model" / "snapshots" / (40 * "a")
    snapshot.mkdir(parents=True)
    (tmp_path / "models--some--model" / "refs").mkdir()
    (tmp_path / "models--some--model" / "refs" / "main").write_text(40 * "a")
    assert local_folder("some/model") == snapshot
    assert local_folder("some/model", 40 * "a") == snapshot
