import gzip
import pickle
import struct
from unittest.mock import patch

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from liftplace.common.errors import UsageError
from liftplace.data import IdxImages, idx, load_dataset

SIZE = 28


def pixels_of(count, seed=0):
    """Smooth images, so that filters of all kinds agree about them."""
    noise = np.random.default_rng(seed).integers(0, 256, (count, 4, 4), dtype=np.uint8)
    smooth = [Image.fromarray(image).resize((SIZE, SIZE), Image.BICUBIC) for image in noise]
    return np.stack([np.asarray(image) for image in smooth])


def idx_bytes(values):
    header = struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape)
    return header + values.astype(np.uint8).tobytes()


def write(folder, prefix, pixels, labels, *, zipped=True):
    for name, values in (("images-idx3-ubyte", pixels), ("labels-idx1-ubyte", labels)):
        path = folder / f"{prefix}-{name}"
        if zipped:
            path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(idx_bytes(values)))
        else:
            path.write_bytes(idx_bytes(values))


@pytest.fixture
def folder(tmp_path):
    write(tmp_path, "train", pixels_of(20), np.arange(20) % 10)
    write(tmp_path, "t10k", pixels_of(10, seed=1), np.arange(10)[::-1])
    return tmp_path


def test_native_resolution_is_the_files_own_pixels(folder):
    for split, count, seed in [("train", 20, 0), ("test", 10, 1)]:
        dataset = load_dataset(folder, resolution=SIZE, split=split)
        assert isinstance(dataset, IdxImages) and len(dataset) == count
        restored = (dataset.images(range(count)) + 1) * 127.5
        assert torch.equal(restored.round()[:, 0], torch.from_numpy(pixels_of(count, seed)).float())
    assert dataset.labels.tolist() == list(range(10))[::-1]


def test_items_are_labelled_floats_of_the_resolution(folder):
    dataset = load_dataset(str(folder), resolution=32, labels=True)
    assert (dataset.channels, dataset.has_captions) == (1, False)
    assert dataset.classes == tuple("0123456789")
    batch = next(iter(DataLoader(dataset, batch_size=20, num_workers=1)))
    assert batch["images"].shape == (20, 1, 32, 32) and batch["images"].dtype == torch.float32
    assert batch["images"].min() >= -1 and batch["images"].max() <= 1
    assert torch.equal(batch["images"], dataset.images(range(20)))
    assert batch["class_labels"].dtype == torch.int64
    assert batch["class_labels"].tolist() == [number % 10 for number in range(20)]
    plain = load_dataset(folder, resolution=32)
    assert plain.classes is None and "class_labels" not in plain[0]


@pytest.mark.parametrize("resolution", [32, 16])
def test_images_are_scaled_as_pil_does(folder, resolution):
    dataset = load_dataset(folder, resolution=resolution)
    ours = (dataset.images(range(20))[:, 0] + 1) * 127.5
    size = (resolution, resolution)
    for image, original in zip(ours.numpy(), pixels_of(20), strict=True):
        theirs = np.asarray(Image.fromarray(original).resize(size, Image.BICUBIC), dtype=float)
        # PIL's bicubic has a = -0.5 too where it antialiases; each side rounds once.
        assert np.abs(image - theirs).max() <= 2


def test_scaling_in_chunks_changes_nothing(folder):
    whole = load_dataset(folder, resolution=32)
    with patch.object(idx, "CHUNK", 7):
        parts = load_dataset(folder, resolution=32)
    assert torch.equal(whole.images(range(20)), parts.images(range(20)))


def test_kept_in_a_byte_a_pixel(folder):
    dataset = load_dataset(folder, resolution=32)
    assert len(pickle.dumps(dataset)) < 20 * 32 * 32 + 2000


def test_plain_files_are_as_good_as_gzipped_ones(folder, tmp_path_factory):
    other = tmp_path_factory.mktemp("plain")
    write(other, "train", pixels_of(20), np.arange(20) % 10, zipped=False)
    zipped, plain = (load_dataset(each, resolution=32) for each in (folder, other))
    assert torch.equal(zipped.images(range(20)), plain.images(range(20)))
    assert zipped.identity() == plain.identity()


def test_identity_changes_with_images_and_labels(folder):
    before = load_dataset(folder, resolution=32).identity()
    write(folder, "train", pixels_of(20), np.arange(20) % 9)
    relabelled = load_dataset(folder, resolution=32).identity()
    pixels = pixels_of(20)
    pixels[3, 5, 5] ^= 1
    write(folder, "train", pixels, np.arange(20) % 9)
    assert len({before, relabelled, load_dataset(folder, resolution=32).identity()}) == 3


def test_named_dataset_is_debians_with_the_names_of_its_classes(folder):
    with patch.object(idx, "FASHION_FOLDER", str(folder)):
        dataset = load_dataset("fashion-mnist", resolution=32, split="test", labels=True)
        assert dataset.classes[dataset[0]["class_labels"]] == "Ankle boot"
        write(folder, "t10k", pixels_of(1), np.array([10]))
        with pytest.raises(UsageError, match=r"gz has a label 10, but there are 10 classes"):
            load_dataset("fashion-mnist", resolution=32, split="test")


def test_missing_package_is_named(tmp_path):
    with (
        patch.object(idx, "FASHION_FOLDER", str(tmp_path)),
        pytest.raises(UsageError, match="apt install dataset-fashion-mnist, or give the folder"),
    ):
        load_dataset("fashion-mnist", resolution=32)


def replace(path, content):
    path.write_bytes(gzip.compress(bytes(content)))


def shortened(path):
    path.write_bytes(path.read_bytes()[:-40])


def of_type(path, kind):
    replace(path, idx_bytes(pixels_of(20))[:2] + bytes([kind, 3]) + idx_bytes(pixels_of(20))[4:])


IMAGES, LABELS = "train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"
DAMAGE = {
    "no gzip": (lambda f: (f / IMAGES).write_bytes(b"pixels"), f"cannot read .*{IMAGES}"),
    "gzip cut off": (lambda f: shortened(f / IMAGES), f"cannot read .*{IMAGES}"),
    "empty": (lambda f: replace(f / IMAGES, b""), "begins with nothing, not 00 00 08 03"),
    "labels for images": (
        lambda f: replace(f / IMAGES, idx_bytes(np.arange(20))),
        f"{IMAGES} is no IDX file of uint8 in 3 axes: it begins with 00 00 08 01",
    ),
    "floats": (lambda f: of_type(f / IMAGES, 13), "begins with 00 00 0d 03"),
    "half a header": (
        lambda f: replace(f / IMAGES, idx_bytes(pixels_of(20))[:9]),
        "ends within its header, at byte 9",
    ),
    "values cut off": (
        lambda f: replace(f / IMAGES, idx_bytes(pixels_of(20))[:-1]),
        "has 15679 values, but its header says 20 x 28 x 28: get it again",
    ),
    "values too many": (
        lambda f: replace(f / LABELS, idx_bytes(np.arange(20)) + b"\0"),
        f"{LABELS} has 21 values, but its header says 20",
    ),
    "no images": (lambda f: replace(f / IMAGES, idx_bytes(np.zeros((0, 28, 28)))), "is empty"),
    "too few labels": (
        lambda f: replace(f / LABELS, idx_bytes(np.arange(19))),
        "has 20 images, but .* has 19 labels",
    ),
    "oblong": (
        lambda f: replace(f / IMAGES, idx_bytes(np.zeros((20, 28, 14)))),
        "images of 28 x 14 pixels: they must be square",
    ),
    "no labels": (lambda f: (f / LABELS).unlink(), f"has no {LABELS}: it needs images and labels"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_damage_is_named(folder, case):
    damage, message = DAMAGE[case]
    damage(folder)
    with pytest.raises(UsageError, match=message):
        load_dataset(folder, resolution=32)


def test_split_that_is_not_there(folder):
    (folder / "t10k-images-idx3-ubyte.gz").unlink()
    assert len(load_dataset(folder, resolution=32)) == 20
    with pytest.raises(UsageError, match="has no t10k-images-idx3-ubyte.gz"):
        load_dataset(folder, resolution=32, split="test")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"resolution": 0}, "resolution must be an integer of at least 1, got 0"),
        ({"resolution": 32, "split": "valid"}, "one of train, test, got 'valid'"),
        ({"resolution": 32, "captions": True}, "has no captions: give a --train_data_dir with"),
    ],
)
def test_bad_arguments_are_named(folder, arguments, message):
    with pytest.raises(UsageError, match=message):
        load_dataset(folder, **arguments)
