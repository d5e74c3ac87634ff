from pathlib import Path

import pytest

from liftplace.demo.report import announcement, loading_lines, table
from liftplace.demo.settings import DemoSettings
from tests.train.tiny import tiny_unet


def model(label, fd_lite0, trained):
    return {
        "label": label,
        "parameters": 35173,
        "share_of_teacher": 0.0287,
        "macs": 2_140_000,
        "fd_lite0": fd_lite0,
        "kid": -0.0042,
        "pixel_error": 0.25,
        "training_seconds": trained,
        "sampling_seconds": 1.25,
    }


@pytest.fixture
def found():
    return {
        "models": {"teacher": model("teacher", 30.04, None), "place": model("PLACE", 100.06, 9.6)},
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
        "1.2",
    ]
    assert student.split()[-2:] == ["10", "1.2"]
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


def test_announcement_names_the_settings_of_all():
    settings = DemoSettings(max_train_steps=7, learning_rate=1e-3, kd_weight=0.5)
    text = announcement(settings, tiny_unet(), 4000, 1)
    for fact in ("4,000", "no KD, output KD, LIFT, LIFT+PLACE", "7 steps", "0.001", "0.5 x dist"):
        assert fact in text


def test_loading_lines_name_the_folder():
    first, second = loading_lines(Path("my demo"), "lift")
    assert first == "from diffusers import DDPMPipeline"
    compile(second, "line", "exec")
    assert repr(str(Path("my demo") / "students" / "lift")) in second
