"""--height and --width: images that are no squares, where the model can."""

from dataclasses import replace

import pytest
import torch
from PIL import Image

from liftplace.common.errors import UsageError
from liftplace.data import load_dataset
from liftplace.data.config import EncodeConfig
from liftplace.data.encode import encode
from liftplace.data.encoder import Encoder
from liftplace.data.pictures import to_tensor
from liftplace.evaluate.sample import SampleConfig, sample
from liftplace.models.loading import load_model
from liftplace.train import DistillConfig, TrainConfig, distill, train
from tests.families.pipelines import tiny_pipeline

TALL = {"height": 24, "width": 16}


def stripes(width, height):
    """Each column of its own grey, so that one sees which are kept."""
    row = [(round(255 * column / (width - 1)),) * 3 for column in range(width)]
    image = Image.new("RGB", (width, height))
    image.putdata(row * height)
    return image


def test_the_middle_is_kept_at_the_asked_aspect():
    made = to_tensor(stripes(64, 48), (24, 16), "crop")
    assert made.shape == (3, 24, 16)
    greys = (made[0, 0] + 1) * 127.5  # of columns 16 to 47
    assert greys[0] == pytest.approx(255 * 16.5 / 63, abs=3)
    assert greys[-1] == pytest.approx(255 * 46.5 / 63, abs=3)
    whole = to_tensor(stripes(64, 48), (24, 16), "squash")
    assert whole[0, 0, 0] < -0.9 and whole[0, 0, -1] > 0.9


def test_squares_are_as_before():
    picture = stripes(60, 40)
    assert torch.equal(to_tensor(picture, 16, "crop"), to_tensor(picture, (16, 16), "crop"))


def test_digits_take_a_size_too():
    assert load_dataset("digits", resolution=(12, 20))[0]["images"].shape == (1, 12, 20)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"height": 24}, "give --height and --width together, got 24 and None"),
        (TALL | {"resolution": 16}, "give --resolution 16 or --height 24 --width 16, not both"),
        ({"height": 0, "width": 16}, "height must be at least 1"),
    ],
)
def test_half_a_size_is_refused(sizes, message):
    for config in (DistillConfig, SampleConfig):
        with pytest.raises(UsageError, match=message):
            config(**sizes)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    return tiny_pipeline("SDXL", tmp_path_factory.mktemp("sdxl") / "teacher")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for number in range(4):
        stripes(40, 30).save(folder / f"{number}.png")
    lines = (f'{{"file_name": "{number}.png", "text": "a cat"}}' for number in range(4))
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    return folder


def test_the_model_is_told_the_size(teacher):
    encoder = Encoder(load_model(teacher), (24, 16))
    factor = encoder.factor
    assert encoder.shape[1:] == (24 // factor, 16 // factor)
    times = encoder.conditions({"images": torch.zeros(2, 3, 24, 16), "captions": ["a", "b"]})
    assert times["time_ids"].tolist() == [[24, 16, 0, 0, 24, 16]] * 2


def test_encode_distill_and_sample(teacher, photos, tmp_path):
    cache = EncodeConfig(
        pretrained_teacher_name_or_path=str(teacher),
        train_data_dir=str(photos),
        output_dir=str(tmp_path / "cache"),
        **TALL,
    )
    encode(cache)
    config = DistillConfig(
        pretrained_teacher_name_or_path=str(teacher),
        student=str(teacher),
        train_data_dir=str(tmp_path / "cache"),
        output_dir=str(tmp_path / "run"),
        max_train_steps=1,
        train_batch_size=2,
        report_to="none",
        **TALL,
    )
    distill(config)
    with pytest.raises(UsageError, match=r"made at --resolution \[24, 16\], not 16"):
        distill(replace(config, height=16, output_dir=str(tmp_path / "other")))
    sample(
        SampleConfig(
            model=str(tmp_path / "run"),
            output=str(tmp_path / "grid.png"),
            num_samples=1,
            num_inference_steps=2,
            **TALL,
        )
    )
    assert (tmp_path / "grid.png").is_file()


def test_models_of_one_size_refuse(photos, tmp_path):
    pixels = tiny_pipeline("UNet2DModel", tmp_path / "teacher")
    with pytest.raises(UsageError, match="works at"):
        Encoder(load_model(pixels), (24, 16))
    config = TrainConfig(train_data_dir=str(photos), output_dir=str(tmp_path / "run"), **TALL)
    with pytest.raises(UsageError, match="--height 24 --width 16 are for U-Nets of Stable"):
        train(config)
