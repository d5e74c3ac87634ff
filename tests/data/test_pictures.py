import re

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from liftplace.common.errors import UsageError
from liftplace.data import load_dataset
from liftplace.data.pictures import SUFFIXES, broken_headers, to_rgb

RAMP = np.linspace(0, 1, 64)[None].repeat(64, 0)  # black at the left, white at the right


def first(folder):
    return load_dataset(folder, resolution=8)[0]["images"]


def save(path, pixels, mode=None, **options):
    Image.fromarray(pixels, mode).save(path, **options)


@pytest.mark.parametrize(
    ("name", "pixels"),
    [
        ("8.png", (RAMP * 255).astype("uint8")),
        ("16.png", (RAMP * 65535).astype("uint16")),
        ("16.tiff", (RAMP * 65535).astype("uint16")),
        ("float.tiff", RAMP.astype("float32")),
    ],
)
def test_a_ramp_arrives_as_a_ramp(tmp_path, name, pixels):
    save(tmp_path / name, pixels)
    image = first(tmp_path)
    assert image.mean().abs() < 0.02 and image.min() < -0.85 and image.max() > 0.85
    assert (image.diff(dim=2) > 0).all()


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        ((RAMP * 1000).astype("int32"), "32-bit integers, whose white is unknown"),
        ((RAMP * 2).astype("float32"), r"floats from 0 to 2: need them in \[0, 1\]"),
        (np.full((4, 4), np.nan, "float32"), "floats from nan"),
    ],
)
def test_pixels_without_one_meaning_are_refused_by_name(tmp_path, pixels, message):
    save(tmp_path / "x.tiff", pixels)
    with pytest.raises(UsageError, match=rf"x\.tiff: {message}"):
        first(tmp_path)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "P"])
def test_what_is_transparent_is_white(mode):
    clear = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    clear.paste((0, 0, 255, 255), (0, 0, 2, 4))
    image = clear.convert(mode)
    if mode == "P":
        image = clear.convert("RGB").quantize(4)
        image.info["transparency"] = image.getpixel((3, 0))
    image = to_rgb(image)
    assert image.getpixel((3, 3)) == (255, 255, 255)
    assert image.getpixel((0, 0))[2] > image.getpixel((0, 0))[0] or mode in ("LA", "PA")


@pytest.mark.parametrize("mode", ["1", "CMYK", "YCbCr", "HSV", "RGBX"])
def test_other_colour_spaces_become_rgb(mode):
    assert to_rgb(Image.new("RGB", (4, 4), (255, 255, 255)).convert(mode)).getpixel((0, 0)) == (
        255, 255, 255,
    )  # fmt: skip


@pytest.mark.parametrize("suffix", sorted(SUFFIXES))
def test_every_suffix_can_be_read(tmp_path, suffix):
    kind = {".jp2": "JPEG2000", ".j2k": "JPEG2000", ".apng": "PNG", ".pnm": "PPM"}
    grey = suffix in (".pgm", ".pbm")
    image = Image.new("L" if grey else "RGB", (16, 16), 255 if grey else (255, 255, 255))
    image = image.convert("1") if suffix == ".pbm" else image
    image.save(tmp_path / f"a{suffix.upper()}", kind.get(suffix))
    assert first(tmp_path).min() > 0.95


@pytest.mark.parametrize("content", [b"", b"<html>404</html>", b"\0\5\x16\7" + b"\0" * 60])
def test_what_is_no_picture_is_named_before_anything_is_read(tmp_path, content):
    Image.new("RGB", (4, 4)).save(tmp_path / "good.png")
    (tmp_path / "bad.jpg").write_bytes(content)
    dataset = load_dataset(tmp_path, resolution=8)
    with pytest.raises(UsageError, match=r"cannot read image .*bad\.jpg: not an image"):
        dataset.verify()


def test_many_bad_pictures_are_counted(tmp_path):
    paths = [tmp_path / f"{number}.png" for number in range(5)]
    for path in paths:
        path.write_bytes(b"no")
    assert re.search(r"0\.png.*1\.png.*2\.png.*; and 2 more$", broken_headers(paths))


def test_a_picture_of_400_megapixels_is_refused_by_its_header(tmp_path):
    header = Image.new("1", (1, 1))
    header.save(tmp_path / "x.ppm")
    (tmp_path / "x.ppm").write_bytes(b"P4\n20000 20000\n")
    problem = broken_headers([tmp_path / "x.ppm"])
    assert "x.ppm: Image size (400000000 pixels)" in problem


def test_the_first_frame_of_an_animation_is_taken(tmp_path):
    frames = [Image.new("RGB", (4, 4), colour) for colour in ((255, 255, 255), (0, 0, 0))]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert torch.equal(first(tmp_path), torch.ones(3, 8, 8))


@pytest.mark.parametrize("suffix", sorted(SUFFIXES - {".apng", ".jfif", ".jpe", ".jpg", ".tif"}))
def test_a_picture_cut_off_anywhere_is_read_or_named(tmp_path, suffix):
    kind = {".jp2": "JPEG2000", ".j2k": "JPEG2000", ".pnm": "PPM"}.get(suffix)
    mode = {".pbm": "1", ".pgm": "L"}.get(suffix, "RGB")
    path = tmp_path / f"a{suffix}"
    Image.effect_noise((24, 16), 60).convert(mode).save(path, kind)
    whole, refused = path.read_bytes(), 0
    for size in range(0, len(whole), max(1, len(whole) // 40)):
        path.write_bytes(whole[:size])
        try:
            first(tmp_path)
        except UsageError as error:
            assert f"cannot read image {path}: " in str(error)
            refused += 1
    assert refused > 10


@pytest.mark.parametrize("exif", [b"", b"Exif\0\0", b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01", b"no"])
@pytest.mark.parametrize("suffix", ["png", "jpg", "webp"])
def test_damaged_exif_leaves_a_picture_as_it_is(tmp_path, suffix, exif):
    image = Image.effect_noise((8, 8), 60).convert("RGB")
    image.save(tmp_path / f"a.{suffix}")
    plain = first(tmp_path)
    image.save(tmp_path / f"a.{suffix}", exif=exif)
    assert torch.equal(first(tmp_path), plain)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_turned_upright(tmp_path, orientation):
    image = Image.effect_noise((8, 8), 60).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(tmp_path / "a.png", exif=exif)
    with Image.open(tmp_path / "a.png") as file:
        ImageOps.exif_transpose(file).save(tmp_path / "b.png")
    dataset = load_dataset(tmp_path, resolution=8)
    assert torch.equal(dataset[0]["images"], dataset[1]["images"])
