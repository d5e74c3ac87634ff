from dataclasses import replace

import pytest
import torch
from torch.utils.data import default_collate

from liftplace.cli import main
from liftplace.common.errors import UsageError
from liftplace.data import CachedLatents, load_dataset, open_dataset
from liftplace.data.config import DataConfig, EncodeConfig
from liftplace.data.encode import encode
from liftplace.data.encoder import Encoder
from liftplace.models.loading import load_model
from tests.data.pictures import damage, save_captions, save_images
from tests.families.pipelines import tiny_pipeline

CAPTIONS = {f"{number}.png": f"cat {number}" for number in range(5)}


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    save_images(folder, CAPTIONS)
    save_captions(folder, CAPTIONS)
    return folder


def settings(teacher, pictures, cache, **changes):
    standard = EncodeConfig(
        pretrained_teacher_name_or_path=str(teacher),
        train_data_dir=str(pictures),
        output_dir=str(cache),
        batch_size=2,
        shard_size=2,
    )
    return replace(standard, **changes)


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("name", ["UNet2DConditionModel", "SDXL", "PixArtTransformer2DModel"])
def test_training_sees_the_same_from_the_cache(pipelines, pictures, tmp_path, name):
    encode(settings(pipelines(name), pictures, tmp_path / "cache"))
    cached = load_dataset(tmp_path / "cache", resolution=16)
    plain = load_dataset(pictures, resolution=16, captions=True)
    fly, offline = Encoder(load_model(pipelines(name))), Encoder(load_model(pipelines(name)))
    fly.check(plain)
    offline.check(cached)
    items = [default_collate([data[i] for i in range(5)]) for data in (plain, cached)]
    noise = torch.randn(5, *fly.shape)
    for ours, theirs in zip(
        (
            offline.latents(items[1], noise),
            offline.conditions(items[1]),
            offline.null_conditions(5),
        ),
        (fly.latents(items[0], noise), fly.conditions(items[0]), fly.null_conditions(5)),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    assert "_pipeline" not in offline.__dict__  # no text encoder was loaded


def test_classes_through_the_command_line(pipelines, tmp_path, capsys):
    save_images(tmp_path / "pictures", [f"{label}/a.png" for label in range(10)])
    with pytest.raises(SystemExit) as ended:
        folders = f"--train_data_dir {tmp_path / 'pictures'} --output_dir {tmp_path / 'cache'}"
        flags = f"{folders} --mixed_precision bf16 --dataloader_num_workers 1".split()
        teacher = str(pipelines("DiTTransformer2DModel"))
        main(["encode", "--pretrained_teacher_name_or_path", teacher, *flags])
    assert ended.value.code == 0
    assert "10 images; give it as --train_data_dir" in capsys.readouterr().out
    cached = CachedLatents(tmp_path / "cache")
    assert [item["class_labels"].item() for item in cached] == list(range(10))
    assert cached[0]["latent_mean"].dtype == torch.bfloat16 and not cached.has_captions
    encoder = Encoder(load_model(pipelines("DiTTransformer2DModel")))
    encoder.check(cached)
    latents = encoder.latents(default_collate([cached[0], cached[1]]))
    assert latents.dtype == torch.float32 and latents.shape == (2, 4, 8, 8)


def test_interrupted_command_goes_on_and_ends_the_same(pipelines, pictures, tmp_path):
    config = settings(pipelines("UNet2DConditionModel"), pictures, tmp_path / "cache")
    encode(replace(config, output_dir=str(tmp_path / "at once")))
    last = pictures / "4.png"
    content = last.read_bytes()
    damage(last)
    with pytest.raises(UsageError, match=r"cannot read image .*4\.png"):
        encode(config)
    with pytest.raises(UsageError, match="is unfinished, 4 of 5 images"):
        CachedLatents(tmp_path / "cache")
    last.write_bytes(content)
    first = tmp_path / "cache" / "shard-00000.safetensors"
    written = first.stat().st_mtime_ns
    encode(config)
    assert files(tmp_path / "cache") == files(tmp_path / "at once")
    assert first.stat().st_mtime_ns == written  # and not again


def test_a_damaged_picture_is_skipped_where_that_is_asked_for(pipelines, pictures, tmp_path):
    damage(pictures / "2.png")
    config = settings(pipelines("UNet2DConditionModel"), pictures, tmp_path / "cache")
    with pytest.warns(UserWarning, match=r"2\.png: .*: the next image takes its place"):
        encode(replace(config, on_bad_files="skip"))
    cached = CachedLatents(tmp_path / "cache")
    assert len(cached) == 5 and torch.equal(cached[2]["latent_mean"], cached[3]["latent_mean"])


def test_finished_cache_of_changed_captions_is_refused(pipelines, pictures, tmp_path):
    config = settings(pipelines("UNet2DConditionModel"), pictures, tmp_path / "cache")
    encode(config)
    encode(config)  # nothing to do
    save_captions(pictures, CAPTIONS | {"2.png": "a dog"})
    with pytest.raises(UsageError, match="holds another cache: its dataset is"):
        encode(config)


def test_cache_that_does_not_fit_the_run(pipelines, pictures, tmp_path):
    encode(settings(pipelines("UNet2DConditionModel"), pictures, tmp_path / "cache"))
    cached = CachedLatents(tmp_path / "cache")
    encoder = Encoder(load_model(pipelines("UNet2DConditionModel")))
    with pytest.raises(UsageError, match="--random_flip does not go with .*cache"):
        encoder.check(cached, random_flip=True)
    other = tiny_pipeline("UNet2DConditionModel", tmp_path / "other", seed=1)
    with pytest.raises(UsageError, match="was made by .* another VAE than .*other has"):
        Encoder(load_model(other)).check(cached)


def test_a_squashed_cache_is_not_taken_for_a_cropped_one(pipelines, pictures, tmp_path):
    config = settings(pipelines("UNet2DConditionModel"), pictures, tmp_path / "cache")
    encode(replace(config, resize_mode="squash"))
    with pytest.raises(UsageError, match="another cache: its resize_mode is squash, not crop"):
        encode(config)
    data = DataConfig(train_data_dir=config.output_dir)
    options = {"labels": False, "captions": True}
    assert open_dataset(data, 16, **options).resize_mode == "squash"
    with pytest.raises(UsageError, match="cache was made with --resize_mode squash: leave the"):
        open_dataset(replace(data, center_crop=True), 16, **options)


def test_nothing_to_encode(pipelines, pictures, tmp_path):
    config = settings(pipelines("UNet2DModel"), pictures, tmp_path / "cache")
    with pytest.raises(UsageError, match="has no VAE: there is nothing to encode"):
        encode(config)
    config = settings(pipelines("UNet2DConditionModel"), pictures, tmp_path / "cache")
    encode(config)
    again = replace(config, train_data_dir=config.output_dir, output_dir=str(tmp_path / "again"))
    with pytest.raises(UsageError, match="is a cache already"):
        encode(again)
