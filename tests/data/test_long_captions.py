import logging

import pytest
import torch

from liftplace.data import load_dataset
from liftplace.data.encoder import Encoder
from liftplace.data.long_captions import quiet_about_length
from liftplace.models.loading import load_model
from tests.data.pictures import save_captions, save_images
from tests.families.pipelines import tiny_pipeline


@pytest.mark.parametrize(
    "name, limit",
    [
        ("UNet2DConditionModel", 77),
        ("SDXL", 77),
        ("PixArtTransformer2DModel", 120),
        ("SD3Transformer2DModel", 256),
        ("FluxTransformer2DModel", 512),
    ],
)
def test_the_number_of_long_captions_is_said_once(name, limit, tmp_path, capsys, caplog):
    encoder = Encoder(load_model(tiny_pipeline(name, tmp_path / "model")), 16)
    # A letter is a token, and an end comes after them.
    captions = {"0.png": "a", "1.png": "a" * (limit + 1), "2.png": "b" * 2 * limit}
    save_images(tmp_path / "images", captions)
    save_captions(tmp_path / "images", captions)
    dataset = load_dataset(tmp_path / "images", resolution=16, captions=True)
    encoder.check(dataset)
    encoder.check(dataset)
    printed = capsys.readouterr().out
    assert printed.count("2 of 3 captions are longer than") == 1
    assert f"the {limit} tokens that {tmp_path / 'model'} reads" in printed
    with caplog.at_level(logging.WARNING):
        found = [encoder.text(list(captions.values())) for _ in range(2)]
    assert not [record for record in caplog.records if "truncated" in record.getMessage()]
    assert not [record for record in caplog.records if "longer than" in record.getMessage()]
    assert all(torch.equal(found[0][key], found[1][key]) for key in found[0])


def test_other_messages_stay(tmp_path, caplog):
    pipeline = Encoder(load_model(tiny_pipeline("UNet2DConditionModel", tmp_path)))._pipeline
    logger = logging.getLogger(type(pipeline).__module__)
    with quiet_about_length(pipeline):
        logger.warning("something else")
        pipeline.encode_prompt("a" * 100, "cpu", 1, False)
    pipeline.encode_prompt("b" * 100, "cpu", 1, False)  # says what it cuts off
    messages = [record.getMessage() for record in caplog.records]
    assert "something else" in messages
    about_length = [message for message in messages if "your input was truncated" in message]
    assert about_length and all("b" * 20 in message.replace(" ", "") for message in about_length)
