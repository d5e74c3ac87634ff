import pytest
import torch

from liftplace.common.errors import UsageError
from liftplace.data import load_dataset
from liftplace.data.reading import read_batches
from tests.data.pictures import damage, save_images

NAMES = ["0.png", "1.png", "2.png", "3.png"]


@pytest.fixture
def dataset(tmp_path):
    save_images(tmp_path, NAMES)
    damage(tmp_path / "1.png")
    dataset = load_dataset(tmp_path, resolution=8)
    dataset.verify()  # its header is whole
    return dataset


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_picture_is_named_in_one_line(dataset, workers):
    with pytest.raises(UsageError, match=r"\Acannot read image [^\n]*1\.png: [^\n]*\Z"):
        list(read_batches(dataset, batch_size=2, num_workers=workers))


@pytest.mark.parametrize("workers", [0, 1])
def test_the_next_picture_takes_its_place(dataset, workers):
    problems = []
    batches = read_batches(dataset, problems.append, batch_size=2, num_workers=workers)
    images = torch.cat([items["images"] for items in batches])
    assert torch.equal(images, dataset.images([0, 2, 2, 3]))
    assert len(problems) == 1 and "1.png" in problems[0]


def test_the_first_stands_for_a_damaged_last(dataset):
    damage(dataset.paths[3])
    (items,) = read_batches(dataset, lambda problem: None, batch_size=4)
    assert torch.equal(items["images"], dataset.images([0, 2, 2, 0]))


def test_a_lost_folder_ends_it(dataset):
    for path in dataset.paths:
        path.unlink()
    with pytest.raises(UsageError, match=r"4 images in a row, the first: cannot read .*0\.png"):
        list(read_batches(dataset, lambda problem: None, batch_size=2))
