import json
import signal
import socket
import threading

import pytest
import torch
from diffusers import DDPMPipeline
from PIL import Image

from liftplace.common.errors import UsageError
from liftplace.demo import experiment
from liftplace.demo.methods import METHODS
from liftplace.demo.settings import DemoSettings
from liftplace.train.run_folder import read_metrics

NAMES = [method.name for method in METHODS]
TINY = DemoSettings(
    max_train_steps=5,
    train_batch_size=4,
    num_samples=8,
    num_inference_steps=2,
    num_shown=4,
    num_map_images=3,
    map_timesteps=(100, 800),
)


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*arguments):
        raise AssertionError(f"the demo went to the network: {arguments}")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo") / "out"
    found = experiment.run(folder, settings=TINY, cache_dir=folder.parent / "cache")
    return folder, found


def test_everything_is_there(finished):
    folder, found = finished
    assert sorted(path.name for path in folder.iterdir()) == [
        "losses.png",
        "maps.png",
        "metrics.jsonl",
        "results.json",
        "samples.png",
        "students",
    ]
    for picture in folder.glob("*.png"):
        with Image.open(picture) as image:
            image.load()
            assert image.width > 400
    assert sorted(path.name for path in folder.parent.iterdir()) == ["cache", "out"]
    assert json.loads((folder / "results.json").read_text())["models"] == found["models"]


def test_results_say_what_was_done(finished):
    folder, found = finished
    models = found["models"]
    assert list(models) == ["teacher", *NAMES]
    students = [models[name] for name in list(models)[1:]]
    assert all(each["share_of_teacher"] < 0.13 for each in students)
    assert models["teacher"]["pixel_error"] == 0 < min(each["pixel_error"] for each in students)
    assert found["num_images"] == 8
    assert found["settings"]["max_train_steps"] == 5 and found["settings"]["seed"] == 0
    assert found["optimiser"]["learning_rate"] == TINY.learning_rate
    steps = read_metrics(folder / "metrics.jsonl")
    assert [line["step"] for line in steps] == [1, 2, 3, 4, 5]
    for name in list(models)[1:]:
        for term, value in models[name]["last_step"].items():
            assert steps[-1][f"{name}/{term}"] == value
    assert "weight" in models["narrow_place"]["last_step"] and "kd" in models["wide"]["last_step"]
    # One batch serves all, and those of the same norms start alike.
    assert len({round(steps[0][f"{name}/task"], 5) for name in NAMES}) == 2
    assert len({round(steps[-1][f"{name}/task"], 5) for name in NAMES}) == 5


@pytest.mark.parametrize("method", ["narrow", "wide"])
def test_the_two_lines_load_a_student(finished, method):
    folder, _ = finished
    names = {}
    exec("\n".join(experiment.loading_lines(folder, method)).replace("=50", "=2"), names)
    assert names["image"].size == (16, 16)
    unet = DDPMPipeline.from_pretrained(folder / "students" / method).unet
    assert unet.config.norm_num_groups == (8 if method == "narrow" else 2)


def test_a_second_run_measures_the_same_and_says_what_it_does(finished, tmp_path, capsys):
    folder, found = finished
    again = experiment.run(tmp_path / "out", settings=TINY, cache_dir=folder.parent / "cache")
    for name, model in found["models"].items():
        for key in ("fd_lite0", "kid", "pixel_error"):
            assert model[key] == pytest.approx(again["models"][name][key], rel=1e-6)
        assert model["last_step"] == again["models"][name]["last_step"]
    printed = capsys.readouterr()
    assert "5 steps of 4, AdamW, learning rate 0.01" in printed.out
    assert "8 samples against 8 held-out images" in printed.out
    wide = tmp_path / "out" / "students" / "wide"
    assert f"DDPMPipeline.from_pretrained('{wide}')" in printed.out
    assert (
        "Training 5 students: 100%" in printed.err
        and "Sampling wide norms, output KD: 100%" in printed.err
    )


def test_a_folder_that_holds_something_is_left_alone(finished, tmp_path):
    folder, _ = finished
    before = (folder / "results.json").read_bytes()
    with pytest.raises(UsageError, match="holds the results of an earlier run"):
        experiment.run(folder, fast=True)
    assert (folder / "results.json").read_bytes() == before
    (tmp_path / "precious.txt").write_text("precious")
    with pytest.raises(UsageError, match="is not empty"):
        experiment.run(tmp_path, fast=True)
    assert [path.name for path in tmp_path.iterdir()] == ["precious.txt"]


def test_ctrl_c_leaves_nothing_behind(tmp_path, monkeypatch):
    steps = []

    def interrupted(self, batch, *arguments, **options):
        steps.append(batch)
        signal.raise_signal(signal.SIGINT)
        return accumulate(self, batch, *arguments, **options)

    accumulate = experiment.ModelTrainer.accumulate
    monkeypatch.setattr(experiment.ModelTrainer, "accumulate", interrupted)
    assert threading.current_thread() is threading.main_thread()
    with pytest.raises(KeyboardInterrupt):
        experiment.run(tmp_path / "out", settings=TINY, cache_dir=tmp_path / "cache")
    assert steps and not any(path.name != "cache" for path in tmp_path.iterdir())


def test_a_student_saved_wrongly_is_noticed(tmp_path, monkeypatch):
    teacher = experiment.load_model(experiment.TEACHER)

    def save_another(model, process, folder):
        with torch.no_grad():
            next(model.parameters()).add_(1)
        save_pipeline(model, process, folder)
        with torch.no_grad():
            next(model.parameters()).sub_(2)

    save_pipeline = experiment.save_pipeline
    monkeypatch.setattr(experiment, "save_pipeline", save_another)
    with pytest.raises(RuntimeError, match="differs from the one in memory"):
        experiment._save_student(teacher.model, teacher, tmp_path / "student")
