import json
import os
from collections import Counter
from dataclasses import replace

import pytest

from liftplace.common.errors import UsageError
from liftplace.data import load_dataset, open_dataset
from liftplace.data.config import DataConfig
from liftplace.data.encoder import Encoder
from liftplace.models.loading import load_model
from tests.data.pictures import save_captions, save_images


def names(folder, **options):
    dataset = load_dataset(folder, resolution=8, **options)
    return [path.relative_to(folder).as_posix() for path in dataset.paths]


def test_hidden_files_and_folders_are_no_pictures(tmp_path):
    save_images(tmp_path, ["cat/a.png", ".ipynb_checkpoints/a-checkpoint.png", "__MACOSX/b.png"])
    (tmp_path / "cat" / "._a.png").write_bytes(b"\0\5\x16\7")
    assert names(tmp_path) == names(tmp_path, labels=True) == ["cat/a.png"]
    assert load_dataset(tmp_path, resolution=8, labels=True).classes == ("cat",)


def test_linked_folders_count_and_circles_end(tmp_path):
    save_images(tmp_path / "elsewhere", ["1.png"])
    data = tmp_path / "data"
    save_images(data, ["dog/2.png"])
    (data / "cat").symlink_to(tmp_path / "elsewhere")
    (data / "dog" / "again").symlink_to(data)
    assert names(data, labels=True) == ["cat/1.png", "dog/2.png"]


@pytest.mark.parametrize("labels", [False, True])
def test_a_class_called_train_does_not_hide_the_others(tmp_path, labels):
    save_images(tmp_path, [f"{name}/1.png" for name in ("bicycle", "car", "train")])
    assert names(tmp_path, labels=labels) == ["bicycle/1.png", "car/1.png", "train/1.png"]


def test_folders_without_pictures_are_neither_split_nor_class(tmp_path):
    save_images(tmp_path, ["train/1.png", "validation/2.png"])
    (tmp_path / "notes").mkdir()
    assert names(tmp_path) == ["train/1.png"]
    with pytest.raises(UsageError, match="no folder .*test"):
        names(tmp_path, split="test")


def test_the_only_split_with_pictures_is_read(tmp_path):
    save_images(tmp_path, ["test/1.png"])
    assert names(tmp_path) == names(tmp_path, split="test") == ["test/1.png"]
    (tmp_path / "train").mkdir()
    with pytest.raises(UsageError, match="no image in .*train"):
        names(tmp_path)


def test_archives_are_to_be_unpacked(tmp_path):
    (tmp_path / "images.zip").write_bytes(b"PK")
    with pytest.raises(UsageError, match="no image in .*; unpack the archives in it"):
        names(tmp_path)


def test_classes_that_are_numbers_are_ordered_as_numbers(tmp_path):
    save_images(tmp_path, [f"{number}/0.png" for number in range(12)])
    dataset = load_dataset(tmp_path, resolution=8, labels=True)
    for index, path in enumerate(dataset.paths):
        assert dataset[index]["class_labels"] == int(path.parent.name)


def test_a_class_map_gives_the_numbers(tmp_path):
    save_images(tmp_path / "data", ["tench/1.png", "hen/2.png"])
    file = tmp_path / "map.json"
    file.write_text(json.dumps({"tench": 0, "hen": 8, "goose": 99}))
    dataset = load_dataset(tmp_path / "data", resolution=8, labels=True, class_map=file)
    assert [int(dataset[index]["class_labels"]) for index in range(2)] == [8, 0]
    assert dataset.classes == ("tench", *[""] * 7, "hen")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", 'must be like {"cat": 0'),
        ('{"hen": -1}', 'must be like {"cat": 0'),
        ("{", "cannot read --class_map"),
        ('{"dog": 1}', "has no number for hen"),
    ],
)
def test_a_wrong_class_map_is_named(tmp_path, content, message):
    save_images(tmp_path / "data", ["hen/2.png"])
    (tmp_path / "map.json").write_text(content)
    with pytest.raises(UsageError, match=message):
        load_dataset(tmp_path / "data", resolution=8, labels=True, class_map=tmp_path / "map.json")


def test_a_folder_is_looked_through_before_a_command_uses_it(tmp_path, capsys):
    save_images(tmp_path, ["cat/1.png", "dog/2.png"])
    config = DataConfig(train_data_dir=str(tmp_path))
    open_dataset(config, 8, labels=True, captions=False)
    assert "classes: 0 is cat, 1 is dog" in capsys.readouterr().out
    (tmp_path / "dog" / "3.jpg").write_text("<html>")
    with pytest.raises(UsageError, match=r"3\.jpg: not an image.*--on_bad_files skip"):
        open_dataset(config, 8, labels=True, captions=False)
    with pytest.warns(UserWarning, match=r"3\.jpg: not an image: the next image takes the place"):
        open_dataset(replace(config, on_bad_files="skip"), 8, labels=True, captions=False)


def test_every_folder_is_read_a_fixed_number_of_times(tmp_path, monkeypatch):
    save_images(tmp_path, [f"{name}/{number}.png" for name in "abc" for number in range(3)])
    captions = {f"{name}/{number}.png": "x" for name in "abc" for number in range(3)}
    save_captions(tmp_path, captions)
    read, scandir = Counter(), os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: read.update([str(path)]) or scandir(path))
    load_dataset(tmp_path, resolution=8, labels=True, captions=True)
    # Once for tables, once for pictures, once for captions.
    assert all(read[str(tmp_path / name)] == 3 for name in "abc")


def test_a_model_of_more_classes_takes_a_folder_with_a_map(pipelines, tmp_path):
    save_images(tmp_path / "data", ["cat/1.png", "dog/2.png"])
    (tmp_path / "map.json").write_text('{"cat": 7, "dog": 2}')
    encoder = Encoder(load_model(pipelines("DiTTransformer2DModel")))
    plain, mapped = (
        load_dataset(tmp_path / "data", resolution=16, labels=True, class_map=class_map)
        for class_map in (None, tmp_path / "map.json")
    )
    with pytest.raises(UsageError, match="2 classes, but .* was made for 10.*--class_map FILE"):
        encoder.check(plain)
    encoder.check(mapped)
    (tmp_path / "map.json").write_text('{"cat": 7, "dog": 10}')
    options = {"labels": True, "class_map": tmp_path / "map.json"}
    with pytest.raises(UsageError, match="--class_map gives the number 10, .* for 10 .* 0 ... 9$"):
        encoder.check(load_dataset(tmp_path / "data", resolution=16, **options))
