import pytest
import torch
from torch.utils.data import DataLoader

from liftplace.common.errors import UsageError
from liftplace.data import load_dataset
from tests.data.pictures import save_captions, save_images


def test_labels_are_the_numbers_of_the_folders_by_name(tmp_path):
    save_images(tmp_path / "train", ["dog/1.png", "cat/a/2.png", "dog/3.png"])
    (tmp_path / "train" / "bird").mkdir()
    (tmp_path / "train" / ".hidden").mkdir()
    dataset = load_dataset(tmp_path, resolution=8, labels=True)
    assert dataset.classes == ("bird", "cat", "dog")
    batch = next(iter(DataLoader(dataset, batch_size=3)))
    assert batch["class_labels"].tolist() == [1, 2, 2]
    assert batch["class_labels"].dtype == torch.int64
    assert "class_labels" not in load_dataset(tmp_path, resolution=8)[0]


def test_image_outside_of_the_classes_is_named(tmp_path):
    save_images(tmp_path, ["1.png"])
    with pytest.raises(UsageError, match="has no class labels: need one subfolder"):
        load_dataset(tmp_path, resolution=8, labels=True)
    save_images(tmp_path, ["cat/2.png"])
    with pytest.raises(UsageError, match=r"1\.png has no class label: move it"):
        load_dataset(tmp_path, resolution=8, labels=True)


@pytest.mark.parametrize("column", ["text", "caption"])
def test_captions_of_metadata_files(tmp_path, column):
    save_images(tmp_path, ["1.png", "more/2.png", "below/3.png"])
    save_captions(tmp_path, {"1.png": "a cat", "more/2.png": "zwei\u2028Hunde"}, column)
    save_captions(tmp_path / "below", {"3.png": ""}, column)
    dataset = load_dataset(tmp_path, resolution=8, captions=True)
    assert [dataset[i]["captions"] for i in range(3)] == ["a cat", "", "zwei\u2028Hunde"]
    assert dataset.has_captions
    batch = next(iter(DataLoader(dataset, batch_size=3)))
    assert batch["captions"] == ["a cat", "", "zwei\u2028Hunde"]
    plain = load_dataset(tmp_path, resolution=8)
    assert not plain.has_captions and "captions" not in plain[0]


def test_captions_of_another_column(tmp_path):
    save_images(tmp_path, ["1.png"])
    save_captions(tmp_path, {"1.png": "a cat"}, "prompt")
    dataset = load_dataset(tmp_path, resolution=8, captions=True, caption_column="prompt")
    assert dataset[0]["captions"] == "a cat"


def test_captions_that_are_no_utf8(tmp_path):
    save_images(tmp_path, ["1.png"])
    (tmp_path / "metadata.jsonl").write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match=r"cannot read .*metadata\.jsonl"):
        load_dataset(tmp_path, resolution=8, captions=True)


BAD_LINES = {
    "no file": (None, 'has no captions: need a file metadata.jsonl .*"text": "a cat"'),
    "no line": ("", r"1 images have no caption in .*metadata\.jsonl, the first is .*1\.png"),
    "no JSON": ("1.png: a cat", r"metadata\.jsonl, line 1: need .* got 1\.png: a cat"),
    "no text": ('{"file_name": "1.png"}', r"line 1: need \{.file_name"),
    "a list": ('{"file_name": "1.png", "text": [1]}', "line 1: the caption must be text"),
    "a number": ("3", "line 1: need"),
}


@pytest.mark.parametrize("case", BAD_LINES)
def test_missing_and_damaged_captions_are_named(tmp_path, case):
    line, message = BAD_LINES[case]
    save_images(tmp_path, ["1.png"])
    if line is not None:
        (tmp_path / "metadata.jsonl").write_text(line)
    with pytest.raises(UsageError, match=message):
        load_dataset(tmp_path, resolution=8, captions=True)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("metadata.jsonl", '\ufeff{"file_name": "a/1.png", "text": "a cat"}\n'),
        ("metadata.jsonl", '{"file_name": "a\\\\1.png", "text": "a cat"}\r\n'),
        ("metadata.jsonl", '{"file_name": "a/1.png", "text": ["a cat", "one cat"]}'),
        ("metadata.jsonl", '{"file_name": "a/1.png", "text": "a cat"}\n' * 2),
        ("metadata.csv", '\ufefffile_name,text\r\na/1.png,"a cat"\r\n'),
        ("metadata.csv", "file_name,caption\na/1.png,a cat\n"),
    ],
)
def test_what_other_programs_write_is_read(tmp_path, name, text):
    save_images(tmp_path, ["a/1.png"])
    (tmp_path / name).write_bytes(text.encode())
    assert load_dataset(tmp_path, resolution=8, captions=True)[0]["captions"] == "a cat"


def test_accents_are_the_same_however_they_are_composed(tmp_path):
    save_images(tmp_path, ["e\u0301.png"])  # as macOS writes it
    save_captions(tmp_path, {"\u00e9.png": "a cat"})
    assert load_dataset(tmp_path, resolution=8, captions=True)[0]["captions"] == "a cat"


def test_two_captions_of_one_image_are_named(tmp_path):
    save_images(tmp_path, ["1.png"])
    lines = [f'{{"file_name": "1.png", "text": "{text}"}}' for text in ("a cat", "a dog")]
    (tmp_path / "metadata.jsonl").write_text("\n".join(lines))
    with pytest.raises(UsageError, match=r"line 2: a second, other caption of .*1\.png"):
        load_dataset(tmp_path, resolution=8, captions=True)


def test_a_metadata_file_above_the_splits(tmp_path):
    save_images(tmp_path, ["train/1.png", "test/2.png"])
    save_captions(tmp_path, {"train/1.png": "a cat", "test/2.png": "a dog"})
    for split, caption in (("train", "a cat"), ("test", "a dog")):
        dataset = load_dataset(tmp_path, resolution=8, split=split, captions=True)
        assert dataset[0]["captions"] == caption


def test_names_that_begin_with_the_folder_of_the_metadata_file(tmp_path):
    save_images(tmp_path, ["train/1.png"])
    save_captions(tmp_path / "train", {"train/1.png": "a cat"})
    assert load_dataset(tmp_path, resolution=8, captions=True)[0]["captions"] == "a cat"


def test_a_text_file_beside_each_image(tmp_path):
    save_images(tmp_path, ["1.png", "2.png"])
    (tmp_path / "1.txt").write_text("a cat\n", encoding="utf-8-sig")
    with pytest.raises(UsageError, match=r"cannot read caption .*2\.txt"):
        load_dataset(tmp_path, resolution=8, captions=True)
    (tmp_path / "2.txt").write_text("Hündin", encoding="utf-8")
    dataset = load_dataset(tmp_path, resolution=8, captions=True)
    assert [dataset[i]["captions"] for i in range(2)] == ["a cat", "Hündin"]


def test_images_that_are_named_but_not_there(tmp_path):
    save_images(tmp_path, ["1.png"])
    save_captions(tmp_path, {"1.png": "a cat", "2.png": "a dog"})
    with pytest.warns(UserWarning, match=r"1 images that it names are not there, .*2\.png"):
        load_dataset(tmp_path, resolution=8, captions=True)
