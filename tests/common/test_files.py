import os

import pytest

from liftplace.common.errors import UsageError
from liftplace.common.files import (
    RESULTS,
    check_free,
    new_folder,
    partial_of,
    recover_folder,
    replace_folder,
    updated_folder,
    whole_file,
    write_text_whole,
    write_whole,
)


def test_the_folder_appears_when_the_block_ends(tmp_path):
    target = tmp_path / "deep" / "out"
    with new_folder(target) as folder:
        (folder / "a.txt").write_text("a")
        assert not target.exists()
    assert [path.name for path in target.iterdir()] == ["a.txt"]
    assert [path.name for path in target.parent.iterdir()] == ["out"]


def test_an_empty_folder_is_taken(tmp_path):
    (tmp_path / "out").mkdir()
    with new_folder(tmp_path / "out") as folder:
        (folder / "a.txt").write_text("a")
    assert (tmp_path / "out" / "a.txt").read_text() == "a"


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_nothing_is_left_of_a_block_that_fails(tmp_path, error):
    with pytest.raises(error), new_folder(tmp_path / "out") as folder:
        (folder / "a.txt").write_text("a")
        raise error
    assert list(tmp_path.iterdir()) == []


def test_a_folder_filled_meanwhile_is_kept(tmp_path):
    target = tmp_path / "out"
    with pytest.raises(UsageError, match="not empty"), new_folder(target):
        target.mkdir()
        (target / "precious.txt").write_text("precious")
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "precious.txt"]


def test_folders_that_are_not_free_are_refused(tmp_path):
    (tmp_path / "precious.txt").write_text("precious")
    with pytest.raises(UsageError, match="is not empty: name a new folder"):
        check_free(tmp_path)
    with pytest.raises(UsageError, match="is a file"):
        check_free(tmp_path / "precious.txt")
    with (
        pytest.raises(UsageError, match="cannot write to"),
        new_folder(tmp_path / "precious.txt" / "out"),
    ):
        pass
    (tmp_path / RESULTS).write_text("{}")
    with pytest.raises(UsageError, match="holds the results of an earlier run"):
        check_free(tmp_path)


def test_a_file_is_there_whole_or_as_it_was(tmp_path):
    file = tmp_path / "deep" / "a.txt"
    write_text_whole(file, "ä")
    with pytest.raises(RuntimeError), whole_file(file) as partial:
        partial.write_text("half")
        assert file.read_text(encoding="utf-8") == "ä"
        raise RuntimeError
    assert [path.name for path in file.parent.iterdir()] == ["a.txt"]
    assert file.read_text(encoding="utf-8") == "ä"


def test_a_file_that_a_killed_process_left_is_no_obstacle(tmp_path):
    partial_of(tmp_path / "a").write_bytes(b"half")
    write_whole(tmp_path / "a", b"whole")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_writers_of_a_shared_file_do_not_touch_each_others(tmp_path):
    other = tmp_path / ".a.1.partial"
    other.write_bytes(b"of process 1")
    with whole_file(tmp_path / "a", shared=True) as partial:
        partial.write_bytes(b"whole")
        assert partial != partial_of(tmp_path / "a") and str(os.getpid()) in partial.name
    assert (tmp_path / "a").read_bytes() == b"whole" and other.read_bytes() == b"of process 1"


def test_an_update_replaces_what_has_the_same_name_and_nothing_else(tmp_path):
    (tmp_path / "unet").mkdir()
    for name in ("unet/old", "index", "kept"):
        (tmp_path / name).write_text("old")
    with updated_folder(tmp_path) as partial:
        (partial / "unet").mkdir()
        (partial / "unet" / "new").write_text("new")
        (partial / "index").write_text("new")
    files = {str(path.relative_to(tmp_path)): path.read_text() for path in tmp_path.rglob("*/*")}
    assert files == {"unet/new": "new"}
    assert (tmp_path / "index").read_text() == "new" and (tmp_path / "kept").read_text() == "old"
    with pytest.raises(OSError), updated_folder(tmp_path) as partial:
        (partial / "index").write_text("half")
        raise OSError
    assert sorted(path.name for path in tmp_path.iterdir()) == ["index", "kept", "unet"]
    assert (tmp_path / "index").read_text() == "new"


def test_a_replaced_folder_has_the_new_files_alone(tmp_path):
    folder = tmp_path / "best"
    for text in ("old", "new"):
        partial = partial_of(folder)
        partial.mkdir()
        (partial / text).write_text(text)
        replace_folder(folder)
    assert [path.name for path in folder.iterdir()] == ["new"]
    assert [path.name for path in tmp_path.iterdir()] == ["best"]


@pytest.mark.parametrize(
    "left, expected",
    [
        ([".best.partial"], "partial"),
        ([".best.old", ".best.partial"], "partial"),
        ([".best.old"], "old"),
        (["best", ".best.old"], "best"),
    ],
)
def test_what_a_killed_replacement_left_is_put_right(tmp_path, left, expected):
    for name in left:
        (tmp_path / name).mkdir()
        (tmp_path / name / name.split(".")[-1]).write_text("")
    recover_folder(tmp_path / "best", lambda folder: (folder / "partial").is_file())
    assert [path.name for path in tmp_path.iterdir()] == ["best"]
    assert [path.name for path in (tmp_path / "best").iterdir()] == [expected]
