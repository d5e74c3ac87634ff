import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from liftplace.common.errors import UsageError
from liftplace.data import HubImages, load_dataset

RED, BLUE = (255, 0, 0), (0, 0, 255)
COLUMNS = {
    "image": [Image.new("RGB", (8, 8), RED), Image.new("L", (16, 8), 255)],
    "label": [2, 0],
    "kind": ["red", "grey"],
    "number": [3, 1],
    "partly": [1, None],
    "text": ["a red square", "a white square"],
    "several": [["one", "two"], ["three"]],
}
FEATURES = datasets.Features(
    {
        "image": datasets.Image(),
        "label": datasets.ClassLabel(names=["white", "blue", "red"]),
        "kind": datasets.Value("string"),
        "number": datasets.Value("int32"),
        "partly": datasets.Value("int64"),
        "text": datasets.Value("string"),
        "several": datasets.List(datasets.Value("string")),
    }
)


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(folder))
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "data").mkdir()
    table = datasets.Dataset.from_dict(COLUMNS, features=FEATURES)
    table.to_parquet(tmp_path / "data" / "train-00000-of-00001.parquet")
    return tmp_path


def test_items_of_a_dataset_in_the_hubs_layout(folder):
    dataset = load_dataset(folder, resolution=8, labels=True, captions=True)
    assert isinstance(dataset, HubImages) and len(dataset) == 2
    assert dataset.classes == ("white", "blue", "red")
    first, second = dataset[0], dataset[1]
    red = torch.tensor([1.0, -1.0, -1.0])[:, None, None].expand(3, 8, 8)
    assert torch.equal(first["images"], red)
    assert torch.equal(second["images"], torch.ones(3, 8, 8))
    assert [item["class_labels"].item() for item in (first, second)] == [2, 0]
    assert first["class_labels"].dtype == torch.int64
    assert [item["captions"] for item in (first, second)] == COLUMNS["text"]
    assert load_dataset(folder, resolution=8)[0].keys() == {"images"}


def test_columns_of_other_names_and_types(folder):
    dataset = load_dataset(
        folder,
        resolution=8,
        labels=True,
        captions=True,
        label_column="kind",
        caption_column="several",
    )
    assert dataset.classes == ("grey", "red")
    assert [dataset[i]["class_labels"].item() for i in range(2)] == [1, 0]
    assert [dataset[i]["captions"] for i in range(2)] == ["one", "three"]


def test_labels_that_are_mere_numbers(folder):
    dataset = load_dataset(folder, resolution=8, labels=True, label_column="number")
    assert dataset.classes == ("0", "1", "2", "3")
    assert dataset[0]["class_labels"] == 3


def test_image_that_cannot_be_decoded(tmp_path):
    table = datasets.Dataset.from_dict({"image": [{"bytes": b"no image", "path": None}]})
    table.cast_column("image", datasets.Image()).to_parquet(tmp_path / "train.parquet")
    with pytest.raises(UsageError, match="cannot read row 0"):
        load_dataset(tmp_path, resolution=8)[0]


BAD = {
    "class left out": ({"labels": True, "label_column": "partly"}, "rows without a class"),
    "image": ({"image_column": "picture"}, "no column picture: give --image_column, one of image,"),
    "text for image": ({"image_column": "text"}, "row 0 .*: --image_column text holds str, no"),
    "label": ({"labels": True, "label_column": "class"}, "give --label_column"),
    "caption": ({"captions": True, "caption_column": "prompt"}, "give --caption_column"),
    "no caption": ({"captions": True, "caption_column": "label"}, "holds 2, no text"),
    "no classes": ({"labels": True, "label_column": "several"}, "several holds no classes"),
    "split": ({"split": "test"}, "no such dataset was loaded.*test"),
    "config": ({"config_name": "large"}, "no such dataset was loaded.*large"),
}


@pytest.mark.parametrize("case", BAD)
def test_columns_and_splits_that_are_not_there(folder, case):
    options, message = BAD[case]
    with pytest.raises(UsageError, match=message) as caught:
        load_dataset(folder, resolution=8, **options)[0]
    assert "\n" not in str(caught.value)


def test_name_that_cannot_be_had():
    with pytest.raises(UsageError, match="no folder some/pictures, and no such dataset") as caught:
        load_dataset("some/pictures", resolution=8)
    assert "\n" not in str(caught.value)


def test_package_that_is_missing(folder, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    with pytest.raises(UsageError, match=r'not installed: pip install "liftplace\[hub\]"'):
        load_dataset(folder, resolution=8)


@pytest.fixture
def table():
    return datasets.Dataset.from_dict(COLUMNS, features=FEATURES)


@pytest.mark.parametrize("splits", [None, ["train"], ["train", "test"]])
def test_a_dataset_of_save_to_disk(table, tmp_path, splits):
    saved = table if splits is None else datasets.DatasetDict(dict.fromkeys(splits, table))
    saved.save_to_disk(tmp_path / "saved")
    dataset = load_dataset(tmp_path / "saved", resolution=8, labels=True, captions=True)
    assert dataset.classes == ("white", "blue", "red") and len(dataset) == 2
    assert dataset[0]["class_labels"] == 2 and dataset[0]["captions"] == "a red square"
    assert torch.equal(dataset[1]["images"], torch.ones(3, 8, 8))
    table.select([0]).save_to_disk(tmp_path / "other")
    other = load_dataset(tmp_path / "other", resolution=8, labels=True, captions=True)
    other.name = dataset.name
    assert other.identity() != dataset.identity()


def test_the_only_split_of_a_dataset_is_read(table, folder, tmp_path):
    datasets.DatasetDict(validation=table).save_to_disk(tmp_path / "saved")
    (folder / "data" / "train-00000-of-00001.parquet").unlink()
    table.to_parquet(folder / "data" / "validation-00000-of-00001.parquet")
    for place in ("saved", "data"):
        with pytest.warns(UserWarning, match="has only the split validation: that is read"):
            assert len(load_dataset(tmp_path / place, resolution=8)) == 2
        with pytest.raises(UsageError, match="test"):
            load_dataset(tmp_path / place, resolution=8, split="test")


def test_two_splits_without_train_are_named(table, tmp_path):
    datasets.DatasetDict(a=table, b=table).save_to_disk(tmp_path)
    with pytest.raises(UsageError, match="has no split train: it has a, b"):
        load_dataset(tmp_path, resolution=8)


def test_images_kept_as_bytes_and_columns_of_other_names(table, tmp_path):
    plain = table.cast_column("image", datasets.Image(decode=False)).to_list()
    rows = [{"image": dict(row["image"]), "caption": row["text"]} for row in plain]
    datasets.Dataset.from_list(rows).to_parquet(tmp_path / "train.parquet")
    dataset = load_dataset(tmp_path, resolution=8, captions=True)
    assert torch.equal(dataset[1]["images"], torch.ones(3, 8, 8))
    assert dataset[1]["captions"] == "a white square"


def test_the_only_column_of_images_is_found(table, tmp_path):
    table.rename_column("image", "img").to_parquet(tmp_path / "train.parquet")
    assert torch.equal(load_dataset(tmp_path, resolution=8)[1]["images"], torch.ones(3, 8, 8))


def test_pixels_without_one_meaning_are_named(tmp_path):
    Image.fromarray(np.full((4, 4), 2, "float32")).save(tmp_path / "x.tiff")
    table = datasets.Dataset.from_dict({"image": [str(tmp_path / "x.tiff")]})
    (tmp_path / "data").mkdir()
    table.cast_column("image", datasets.Image()).to_parquet(tmp_path / "data" / "train.parquet")
    with pytest.raises(UsageError, match="cannot read row 0 of .*: floats from 2 to 2"):
        load_dataset(tmp_path / "data", resolution=8)[0]
