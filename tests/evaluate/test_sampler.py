import json

import pytest
import torch

from liftplace.common.errors import UsageError
from liftplace.data.encoder import Encoder
from liftplace.evaluate.sampler import Sampler
from liftplace.models.loading import load_model
from tests.families.pipelines import tiny_pipeline

RUN = {"num_samples": 3, "num_inference_steps": 2, "description": None}


def sampler_of(name, folder, resolution=None, **changes):
    loaded = load_model(tiny_pipeline(name, folder, **changes))
    return Sampler(loaded.process(), Encoder(loaded, resolution)), loaded.model


def test_text_and_guidance_count(tmp_path):
    sampler, model = sampler_of("UNet2DConditionModel", tmp_path)
    cat = sampler.sample(model, prompts=["a cat"], **RUN)
    assert cat.shape == (3, 3, 16, 16) and cat.abs().max() <= 1
    assert torch.allclose(
        sampler.sample(model, prompts=["a cat"], batch_size=2, **RUN), cat, atol=1e-5
    )
    in_turn = sampler.sample(model, prompts=["a cat", "a dog"], **RUN)
    same = [torch.allclose(a, b, atol=1e-5) for a, b in zip(cat, in_turn, strict=True)]
    assert same == [True, False, True]
    guided = sampler.sample(model, prompts=["a cat"], guidance_scale=5.0, **RUN)
    assert not torch.allclose(guided, cat, atol=1e-3)


def test_classes_in_turn(tmp_path):
    sampler, model = sampler_of("UNet2DModel", tmp_path, num_class_embeds=10)
    every = sampler.sample(model, **RUN)
    assert torch.allclose(sampler.sample(model, class_labels=[0, 1, 2], **RUN), every)
    assert not torch.allclose(sampler.sample(model, class_labels=[0, 0, 2], **RUN), every)
    # A part of more samples goes on where the one before it ended.
    part = sampler.sample(model, class_labels=[5, 7], first=1, **RUN)
    assert torch.allclose(part, sampler.sample(model, class_labels=[7, 5, 7], **RUN))
    with pytest.raises(UsageError, match=r"--class_labels must be in 0 ... 9, got \[10\]"):
        sampler.sample(model, class_labels=[10], **RUN)
    with pytest.raises(UsageError, match="has no label for no class"):
        sampler.sample(model, guidance_scale=2.0, **RUN)


def test_flux_at_a_resolution_of_its_own(tmp_path):
    sampler, model = sampler_of("FluxTransformer2DModel", tmp_path, resolution=24)
    assert sampler.sample(model, prompts=["a cat"], **RUN).shape == (3, 3, 24, 24)


def test_conditions_that_the_model_does_not_take(tmp_path):
    sampler, model = sampler_of("UNet2DModel", tmp_path)
    with pytest.raises(UsageError, match="takes no text: leave out --prompts"):
        sampler.sample(model, prompts=["a cat"], **RUN)
    with pytest.raises(UsageError, match="takes no classes: leave out --class_labels"):
        sampler.sample(model, class_labels=[1], **RUN)


def test_the_record_is_strict_json(tmp_path):
    sampler, _ = sampler_of("PixArtTransformer2DModel", tmp_path)
    record = sampler.record()
    assert record["class"] == "DDIMScheduler" and record["lambda_min_clipped"] == "-Infinity"
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert not any(name.startswith("_") for name in record)
