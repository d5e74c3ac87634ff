import pytest

from liftplace.common.errors import UsageError
from liftplace.common.files import RESULTS, check_free, new_folder


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
