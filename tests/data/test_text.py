import json
import shutil
import sys

import pytest
import torch

from liftplace.common.errors import UsageError
from liftplace.data.text import load_text, move_text_encoders


def test_only_tokenizers_and_text_encoders_are_loaded(pipelines):
    parts = load_text(pipelines("UNet2DConditionModel")).components
    assert {name for name, part in parts.items() if part is not None} == {
        "tokenizer",
        "text_encoder",
    }
    assert not any(w.requires_grad for w in parts["text_encoder"].parameters())


def test_layers_that_overflow_in_float16_stay_in_float32(pipelines):
    pipeline = load_text(pipelines("PixArtTransformer2DModel"))
    move_text_encoders(pipeline, torch.device("cpu"), torch.float16)
    types = {name: w.dtype for name, w in pipeline.text_encoder.named_parameters()}
    kept = {name for name, dtype in types.items() if dtype == torch.float32}
    assert kept == {name for name in types if ".wo." in name} != set()


@pytest.mark.parametrize("part", ["text_encoder", "tokenizer"])
def test_part_that_is_missing(pipelines, tmp_path, part):
    shutil.copytree(pipelines("UNet2DConditionModel"), tmp_path / "sd")
    shutil.rmtree(tmp_path / "sd" / part)
    with pytest.raises(UsageError, match=f"has no {part}: captions need the whole"):
        load_text(tmp_path / "sd")


def test_weights_that_cannot_be_read(pipelines, tmp_path):
    shutil.copytree(pipelines("UNet2DConditionModel"), tmp_path / "sd")
    (tmp_path / "sd" / "text_encoder" / "model.safetensors").write_bytes(b"12345678")
    with pytest.raises(UsageError, match="cannot load the text encoders in") as caught:
        load_text(tmp_path / "sd")
    assert "\n" not in str(caught.value)


def test_index_that_cannot_be_read(tmp_path):
    (tmp_path / "model_index.json").write_text("{")
    with pytest.raises(UsageError, match=r"cannot read .*model_index\.json"):
        load_text(tmp_path)


def test_package_that_is_missing(pipelines, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UsageError, match=r'pip install "liftplace\[text\]"'):
        load_text(pipelines("UNet2DConditionModel"))


def test_a_pipeline_that_is_told_something_else_than_text(pipelines, tmp_path):
    """As of variations of a picture: its index names no text encoder."""
    shutil.copytree(pipelines("UNet2DConditionModel"), tmp_path / "sd")
    index = tmp_path / "sd" / "model_index.json"
    parts = json.loads(index.read_text())
    index.write_text(json.dumps({n: x for n, x in parts.items() if n[:4] not in ("text", "toke")}))
    with pytest.raises(UsageError, match="has no text encoder: the model of a StableDiffusionPipe"):
        load_text(tmp_path / "sd")
