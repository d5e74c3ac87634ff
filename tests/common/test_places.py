from types import SimpleNamespace

import pytest

from liftplace.common.errors import UsageError
from liftplace.common.places import check_places


@pytest.mark.parametrize(
    "settings",
    [
        {"pretrained_teacher_name_or_path": "some/model", "student": None},
        {"student": ("some/model", "other/model"), "data": "digits"},
        {"train_data_dir": "name/of-the-hub", "class_map": None},
    ],
)
def test_what_may_be_somewhere_passes(settings):
    check_places(SimpleNamespace(**settings))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"pretrained_teacher_name_or_path": "/no/where"},
            "no folder /no/where: give the folder o",
        ),
        (
            {"student": ("some/model", "/no/where")},
            "no folder /no/where: give the folder of a diff",
        ),
        ({"train_data_dir": "/no/where"}, "no folder /no/where: give a folder of images"),
        ({"reference_dir": "../no"}, "no folder ../no: give a folder of images"),
        ({"student_config": "no.json"}, "--student_config no.json: there is no such file"),
    ],
)
def test_what_is_nowhere_is_named(settings, message):
    with pytest.raises(UsageError, match=message):
        check_places(SimpleNamespace(**settings))


def test_folders_and_files_that_are_here_pass(tmp_path):
    (tmp_path / "map.json").write_text("{}")
    here = {"model": str(tmp_path), "data": str(tmp_path), "class_map": str(tmp_path / "map.json")}
    check_places(SimpleNamespace(**here))
