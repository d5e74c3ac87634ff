import math

import pytest
import torch
from PIL import Image
from transformers import CLIPImageProcessorPil, CLIPModel

from liftplace.common.errors import UsageError
from liftplace.evaluate.clip import ClipSimilarity
from tests.evaluate.tiny_clip import DEVIATION, MEAN, tiny_clip
from tests.families.pipelines import clip_tokenizer

CAPTIONS = ["a red cat", "dogs", "x", "one whose end is never read by this model"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_clip(tmp_path_factory.mktemp("models") / "clip")


def images(side=20):
    generator = torch.Generator().manual_seed(1)
    pixels = torch.rand(4, 3, side // 4, side // 4, generator=generator)
    return torch.nn.functional.interpolate(pixels, scale_factor=4, mode="bilinear") * 2 - 1


def pictures():
    arrays = ((images() + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
    return [Image.fromarray(array) for array in arrays]


def test_images_are_prepared_as_transformers_does(folder):
    processor = CLIPImageProcessorPil(
        size={"shortest_edge": 8},
        crop_size={"height": 8, "width": 8},
        image_mean=MEAN,
        image_std=DEVIATION,
        resample=Image.Resampling.BICUBIC,
    )
    expected = processor(pictures(), return_tensors="pt")["pixel_values"]
    difference = (ClipSimilarity(str(folder)).preprocess(images()) - expected).abs().max()
    assert difference < 1.5 / 255 / min(DEVIATION)  # one of 256 levels


def test_similarity_is_the_cosine_of_both_towers_by_hand(folder):
    network, similarity = CLIPModel.from_pretrained(folder), ClipSimilarity(str(folder))
    tokenizer, expected = clip_tokenizer(), []
    for image, caption in zip(similarity.preprocess(images()), CAPTIONS, strict=True):
        tokens = tokenizer(caption, truncation=True, max_length=16, return_tensors="pt")
        with torch.no_grad():
            text = network.text_projection(network.text_model(**tokens).pooler_output)[0]
            seen = network.vision_model(pixel_values=image[None]).pooler_output
            seen = network.visual_projection(seen)[0]
        product = sum(a * b for a, b in zip(text.tolist(), seen.tolist(), strict=True))
        expected.append(100 * max(0, product / math.hypot(*text) / math.hypot(*seen)))
    found = similarity(images(), CAPTIONS)
    assert found.tolist() == pytest.approx(expected, rel=1e-4, abs=1e-4)
    assert max(expected) > 0 and similarity(images(), CAPTIONS[::-1]).tolist() != expected


def test_opposite_embeddings_count_as_zero(folder):
    similarity = ClipSimilarity(str(folder))
    before = similarity(images(), CAPTIONS)
    with torch.no_grad():
        similarity.network.visual_projection.weight.neg_()
    after = similarity(images(), CAPTIONS)
    assert torch.equal(after == 0, before > 0)


def test_grey_images_are_taken_as_colour(folder):
    similarity, grey = ClipSimilarity(str(folder)), images()[:, :1]
    assert torch.equal(similarity(grey, CAPTIONS), similarity(grey.expand(-1, 3, -1, -1), CAPTIONS))


def test_no_such_model(tmp_path):
    with pytest.raises(UsageError, match="--clip_model .*nowhere cannot be loaded") as error:
        ClipSimilarity(str(tmp_path / "nowhere"))
    assert "\n" not in str(error.value)
