import numpy as np
import pytest
import torch
from PIL import Image

from liftplace.common.errors import UsageError
from liftplace.data import ImageFolder, load_dataset
from tests.data.pictures import save_images

RED, BLUE = (255, 0, 0), (0, 0, 255)


def save_wide(path):
    """40x20: blue with a red central square."""
    image = Image.new("RGB", (40, 20), BLUE)
    image.paste(RED, (10, 0, 30, 20))
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def test_the_aspect_is_kept_unless_squashing_is_asked_for(tmp_path):
    save_wide(tmp_path / "wide.png")
    red = torch.tensor([1.0, -1.0, -1.0])[:, None, None].expand(3, 8, 8)
    assert torch.equal(load_dataset(tmp_path, resolution=8)[0]["images"], red)
    squashed = load_dataset(tmp_path, resolution=8, resize_mode="squash")[0]["images"]
    assert squashed[2, :, 0].min() > 0.9 and squashed[0, :, 4].min() > 0.9
    with pytest.raises(UsageError, match="resize_mode must be one of crop, squash, got 'fill'"):
        load_dataset(tmp_path, resolution=8, resize_mode="fill")


def test_a_square_picture_is_the_same_either_way(tmp_path):
    save_images(tmp_path, ["a.png"], size=21)
    crop, squash = (
        load_dataset(tmp_path, resolution=8, resize_mode=mode)[0]["images"]
        for mode in ("crop", "squash")
    )
    assert torch.equal(crop, squash)


def test_a_cropped_picture_is_what_resizing_the_short_side_and_cropping_gives(tmp_path):
    image = Image.effect_noise((72, 48), 60).convert("RGB")
    image.save(tmp_path / "a.png")
    # As in the diffusers scripts: Resize(16), CenterCrop(16).
    theirs = np.array(image.resize((24, 16), Image.Resampling.LANCZOS).crop((4, 0, 20, 16)))
    ours = (load_dataset(tmp_path, resolution=16)[0]["images"].permute(1, 2, 0) + 1) * 127.5
    # They look beyond the cut: the three columns beside it differ.
    assert np.abs(ours.numpy() - theirs)[:, 3:-3].max() <= 1


def test_grey_palette_and_rotated_images_become_rgb(tmp_path):
    Image.new("L", (8, 8), 255).save(tmp_path / "a.png")
    Image.new("P", (8, 8)).save(tmp_path / "b.gif")
    turned = Image.new("RGB", (8, 4), BLUE)
    turned.paste(RED, (0, 0, 4, 4))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise: the left half comes up
    turned.save(tmp_path / "c.png", exif=exif)
    dataset = ImageFolder(tmp_path, resolution=8)
    batch = dataset.images([0, 1, 2])
    assert batch.shape == (3, 3, 8, 8) and batch.dtype == torch.float32
    assert (batch[0] == 1).all()
    assert batch[2, 0, 0].min() > 0.9 and batch[2, 2, -1].min() > 0.9


def test_subfolders_and_splits(tmp_path):
    save_wide(tmp_path / "train" / "a" / "2.JPG")
    save_wide(tmp_path / "train" / "b" / "1.webp")
    save_wide(tmp_path / "test" / "3.png")
    (tmp_path / "train" / "notes.txt").write_text("no image")
    train = load_dataset(tmp_path, resolution=8)
    assert [path.name for path in train.paths] == ["2.JPG", "1.webp"]
    assert [path.name for path in load_dataset(tmp_path, resolution=8, split="test").paths] == [
        "3.png"
    ]


@pytest.mark.parametrize("content", [b"", b"this is no image", b"\x89PNG\r\n\x1a\n broken"])
def test_unreadable_image_is_named(tmp_path, content):
    (tmp_path / "bad.png").write_bytes(content)
    with pytest.raises(UsageError, match=r"cannot read image .*bad\.png"):
        load_dataset(tmp_path, resolution=8)[0]


def test_truncated_image_is_named(tmp_path):
    Image.effect_noise((64, 64), 50).save(tmp_path / "whole.png")
    whole = (tmp_path / "whole.png").read_bytes()
    (tmp_path / "whole.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UsageError, match=r"whole\.png: .*truncated"):
        load_dataset(tmp_path, resolution=8).images([0])


def test_missing_and_empty_folders_are_named(tmp_path):
    with pytest.raises(UsageError, match="no folder .*nowhere"):
        load_dataset(tmp_path / "nowhere", resolution=8)
    with pytest.raises(UsageError, match="no image in"):
        load_dataset(tmp_path, resolution=8)
    save_wide(tmp_path / "1.png")
    with pytest.raises(UsageError, match="split='test' needs a folder"):
        load_dataset(tmp_path, resolution=8, split="test")
    (tmp_path / "test").mkdir()
    with pytest.raises(UsageError, match="no folder .*train"):
        load_dataset(tmp_path, resolution=8)
