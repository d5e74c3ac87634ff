import shlex
from pathlib import Path

import pytest

from liftplace.analyze.config import AnalyzeConfig
from liftplace.demo.experiment import TEACHER
from liftplace.demo.methods import new_student_trainers
from liftplace.demo.results import announcement, diagnosis_line, loading_lines, table
from liftplace.demo.settings import DemoSettings
from liftplace.models.loading import load_model


def model(label, fd_lite0, mean):
    return {
        "label": label,
        "parameters": 35173,
        "share_of_teacher": 0.0287,
        "macs": 2_140_000,
        "fd_lite0": fd_lite0,
        "kid": -0.0042,
        "pixel_error": 0.25,
        "mean": mean,
        "spread_of_means": 0.08,
        "sampling_seconds": 1.25,
    }


@pytest.fixture
def found():
    return {
        "models": {
            "teacher": model("teacher", 30.04, -0.732),
            "place": model("PLACE", 100.06, 0.1),
        },
        "real_real_floor": {"fd_lite0": 18.8, "kid": -0.017},
        "num_images": 500,
        "num_components": 64,
        "pixel_error_of_unrelated_samples": 0.6,
        "settings": {"num_inference_steps": 12},
        "num_threads": 2,
        "seconds": 180.4,
    }


def test_table_has_one_line_a_model_in_columns(found):
    lines = table(found).splitlines()
    header, rule, floor, teacher, student = lines[1:6]
    assert floor.split() == ["real", "/", "real", "18.8", "-0.017"]
    assert teacher.split()[1:] == [
        "35,173",
        "2.9",
        "%",
        "2.14",
        "M",
        "30.0",
        "-0.004",
        "0.250",
        "-0.73",
        "±",
        "0.08",
        "1.2",
    ]
    assert student.split()[-4:] == ["0.10", "±", "0.08", "1.2"]
    column = header.index("FD-Lite0") + len("FD-Lite0")
    assert [line[:column].split()[-1] for line in (floor, teacher, student)] == [
        "18.8",
        "30.0",
        "100.1",
    ]
    assert set(rule) == {"-", " "}


def test_notes_state_counts_and_seconds(found):
    text = table(found)
    for fact in ("64 principal components", "500 samples against 500 held-out", "12 steps"):
        assert fact in text
    assert "180 s, torch threads: 2" in text and "different noise 0.600" in text


def test_announcement_names_the_settings_and_the_students():
    teacher, settings = load_model(TEACHER), DemoSettings(max_train_steps=7, learning_rate=1e-3)
    trainers = new_student_trainers(teacher, settings, "run")
    text = announcement(settings, teacher.model, trainers, 4000, 1)
    for fact in (
        "4,000",
        "narrow norms, LIFT+PLACE: 156,057",
        "wide norms, output KD: 142,047",
        "7 steps",
        "0.001",
    ):
        assert fact in text


def test_diagnosis_is_a_command_on_what_the_demo_left(tmp_path):
    command, *flags = shlex.split(diagnosis_line(tmp_path))[1:]
    assert command == "analyze"
    config = AnalyzeConfig(
        **{name[2:]: value for name, value in zip(flags[::2], flags[1::2], strict=True)}
    )
    assert Path(config.teacher) == TEACHER and config.student == (
        str(tmp_path / "students/narrow"),
    )


def test_loading_lines_name_the_folder():
    first, second = loading_lines(Path("my demo"), "lift")
    assert first == "from diffusers import DDPMPipeline"
    compile(second, "line", "exec")
    assert repr(str(Path("my demo") / "students" / "lift")) in second
