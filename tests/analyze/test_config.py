import pytest

from liftplace.analyze.config import AnalyzeConfig
from liftplace.cli import _parse
from liftplace.common.errors import UsageError

GIVEN = {"teacher": "t", "student": ("a",), "data": "digits", "output_dir": "out"}


def parse(*argv):
    return _parse(AnalyzeConfig, "analyze", list(argv))


def test_students_are_given_one_flag_each():
    assert parse("--student", "a", "--student", "b").student == ("a", "b")


def test_students_from_a_file(tmp_path):
    file = tmp_path / "analyze.yaml"
    file.write_text("student: [a, b]\nteacher: t\ngroup_sizes: [16, 4, 4]\n")
    config = parse("--config", str(file))
    assert config.student == ("a", "b") and config.teacher == "t" and config.group_sizes == (4, 16)
    file.write_text("student: a\n")
    assert parse("--config", str(file), "--student", "b").student == ("a", "b")


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"teacher": ""}, "--teacher is missing"),
        ({"student": ()}, "--student is missing"),
        ({"data": ""}, "--data is missing"),
        ({"output_dir": ""}, "--output_dir is missing"),
        ({"student": ("a", "./a")}, "--student names one folder twice: a, ./a"),
        ({"num_samples": 4}, "num_samples must be 0 or at least 8, got 4"),
        ({"group_sizes": (1, 4)}, "group_sizes must be at least 2 each"),
        ({"group_sizes": ()}, "group_sizes must be at least 2 each"),
        ({"num_timesteps": 0}, "num_timesteps must be at least 1, got 0"),
        ({"scope": "row"}, "scope must be"),
    ],
)
def test_bad_settings(changes, message):
    with pytest.raises(UsageError, match=message):
        AnalyzeConfig(**GIVEN | changes).check_complete()
    AnalyzeConfig(**GIVEN).check_complete()
