import pytest
import torch
from torch.utils.data import Dataset

from liftplace.common.errors import UsageError
from liftplace.data import load_dataset
from liftplace.data.resident import LARGEST, read_whole, resides, size_of
from tests.data.pictures import save_images

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


class Sized(Dataset):
    """So many items of a kibibyte."""

    def __init__(self, images: int, **fields):
        self.images, self.fields = images, fields

    def __len__(self):
        return self.images

    def __getitem__(self, index):
        return {"images": torch.zeros(1, 16, 16)} | self.fields


def test_every_item_is_there_field_by_field():
    digits = load_dataset("digits", resolution=8, labels=True)
    fields = read_whole(digits, CPU)
    assert fields["images"].dtype == torch.float32 and fields["class_labels"].dtype == torch.int64
    assert fields["images"].shape == (4000, 1, 8, 8) and fields["class_labels"].shape == (4000,)
    for index in (0, 255, 256, 3999):
        for name, value in digits[index].items():
            assert torch.equal(fields[name][index], value)
    assert size_of(digits) == sum(field.nbytes for field in fields.values())


def test_images_of_a_folder(tmp_path):
    save_images(tmp_path, ["a.png", "b.png", "c/d.png"])
    folder = load_dataset(tmp_path, resolution=4)
    assert torch.equal(read_whole(folder, CPU)["images"], folder.images(range(3)))


@pytest.mark.parametrize(
    ("images", "free", "epochs", "expected"),
    [
        (1000, 4_096_000, 1.0, True),
        (1000, 4_095_999, 1.0, False),  # more than a quarter of what is free
        (1000, 4_096_000, 0.9, False),  # some would be read in vain
        (LARGEST // 1024, 2**40, 5.0, True),
        (LARGEST // 1024 + 1, 2**40, 5.0, False),
    ],
)
def test_auto_is_for_what_fits_on_a_gpu(monkeypatch, images, free, epochs, expected):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 2**41))
    assert resides(Sized(images), CUDA, "auto", epochs) is expected
    assert resides(Sized(images), CPU, "auto", epochs) is False
    assert resides(Sized(images), CUDA, "never", epochs) is False
    assert resides(Sized(images), CPU, "always", epochs) is True


def test_captions_stay_where_they_are(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2**40, 2**41))
    captioned = Sized(9, captions="a digit")
    assert resides(captioned, CUDA, "auto", 2.0) is False
    with pytest.raises(UsageError, match="--dataset_on_device always does not go with captions"):
        resides(captioned, CUDA, "always", 2.0)
