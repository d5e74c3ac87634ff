import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import psutil
import pytest
import torch
from PIL import Image

from benchmarks.__main__ import main
from benchmarks.study import grid, sheet
from benchmarks.study import train as train_module
from benchmarks.study.grid import Cell, Study
from benchmarks.study.rows import COLUMNS, StudyFiles, student_strip, teacher_strip
from benchmarks.study.run import keep, together
from benchmarks.study.studies import DIGITS, STUDIES, TEACHERS
from benchmarks.study.train import _evaluator, of_training, spikes, train
from liftplace.common.errors import UsageError
from liftplace.demo.experiment import TEACHER
from liftplace.models.loading import load_model
from liftplace.models.saving import save_pipeline
from liftplace.models.shrink import shrink
from tests.train.tiny import process, tiny_unet

FEW = {"num_samples": 16, "num_inference_steps": 2, "num_error_images": 4, "num_timesteps": 2}
LABELS = {"teacher": "T", "student": "S", "initialisation": "random", "method": "m", "variant": ""}


@pytest.fixture(autouse=True)
def few(monkeypatch):
    for name, value in FEW.items():
        monkeypatch.setitem(grid.SCORED, name, value)
    _evaluator.cache_clear()
    yield
    _evaluator.cache_clear()


def cell(stages=(2,), **settings) -> Cell:
    base = DIGITS | TEACHERS["1.2 M"] | {"student_block_out_channels": (8, 4, 4), "seed": 0}
    base |= {"train_batch_size": 2, "lr_warmup_steps": 0, "learning_rate": 1e-3}
    return Cell("s", "confirm", LABELS, base | settings, stages)


def test_students_train_together_as_alone_and_a_diverged_one_is_told(tmp_path):
    good, wild = cell(loss="place"), cell(loss="mse", learning_rate=1e30, max_grad_norm=0.0)
    pruned = cell(loss="lift", prune={"width": 0.15625}, random_init=False)
    all_three = train([good, wild, pruned], tmp_path / "all", "cpu")
    (alone,) = train([good], tmp_path / "one", "cpu")
    rows = {each.row["hash"]: each.row for each in all_three}
    assert rows[good.hash] == alone.row
    assert alone.row["fd"] > 0 and alone.row["step"] == 2
    worst = max(line["total"] / line["power"] for line in alone.timesteps)
    assert alone.row["status"] == ("diverged" if worst >= 1 else "ok")
    assert 0 < alone.row["teacher_error"] and 0 < alone.row["task_error"]
    assert len(alone.timesteps) == 2
    assert [*alone.pictures] == ["student", "teacher"]
    assert all(samples.shape == (8, 1, 16, 16) for samples in alone.pictures.values())
    assert rows[wild.hash]["status"] == "not finite" and "fd" not in rows[wild.hash]
    assert rows[pruned.hash]["task_error"] > 0


def test_the_steps_of_the_sampler_change_scores_and_nothing_else(tmp_path):
    cells = [cell(loss="mse"), cell(loss="mse", num_inference_steps=3)]
    two, three = train(cells, tmp_path / "run", "cpu")
    assert two.row["task_error"] == three.row["task_error"]
    assert two.row["fd"] != three.row["fd"] and two.row["fd_teacher"] != three.row["fd_teacher"]
    assert not torch.equal(two.pictures["teacher"], three.pictures["teacher"])
    assert teacher_strip(two.row) != teacher_strip(three.row)


def test_both_samplers_and_corrected_samples(tmp_path, monkeypatch):
    monkeypatch.setitem(grid.LEADING, "num_inference_steps", 3)
    both = replace(cell(loss="mse", samplers="both"), corrected=True)
    (found,) = train([both], tmp_path / "both", "cpu")
    (plain,) = train([cell(loss="mse")], tmp_path / "plain", "cpu")
    row = found.row
    same = [name for name in plain.row if name not in ("hash", "settings")]
    assert {name: row[name] for name in same} == {name: plain.row[name] for name in same}
    scores = ("fd", "kid", "pixel_error", "mean_error", "fd_teacher", "kid_teacher")
    added = {*(f"{name}_leading" for name in scores), "fd_corrected_own", "fd_corrected_teacher"}
    assert row.keys() - plain.row.keys() == added <= set(COLUMNS)
    assert row["fd_leading"] != row["fd"]
    assert len({row["fd_leading"], row["fd_corrected_own"], row["fd_corrected_teacher"]}) == 3
    assert 0 < row["mean_error_leading"] <= row["pixel_error_leading"]
    assert teacher_strip(row) != teacher_strip(plain.row)


def test_stages_go_on_from_each_other_and_after_an_interruption(tmp_path):
    cells = [cell(stages=(2, 4), loss="none", lr_scheduler="constant")]
    whole = [each.row for each in train(cells, tmp_path / "whole", "cpu")]
    assert [row["step"] for row in whole] == [2, 4]
    # What a stopped run leaves is taken up: here, all of it.
    again = [each.row for each in train(cells, tmp_path / "whole", "cpu")]
    assert again[-1]["fd"] == whole[-1]["fd"]
    one = cell(stages=(4,), loss="none", lr_scheduler="constant")
    (straight,) = train([one], tmp_path / "straight", "cpu")
    assert straight.row["fd"] == whole[-1]["fd"]


def test_a_teacher_that_is_not_there_yet(tmp_path):
    with pytest.raises(UsageError, match="no teacher in .*/nowhere: train it there with liftplace"):
        train([cell(pretrained_teacher_name_or_path="nowhere")], tmp_path / "run", "cpu")


def test_pictures_that_are_not_there_yet(tmp_path):
    settings = {name: value for name, value in cell().settings.items() if name != "dataset_name"}
    one = Cell("s", "confirm", LABELS, settings | {"train_data_dir": "nowhere"}, (2,))
    with pytest.raises(UsageError, match="no pictures in .*/nowhere: make them with python -m"):
        train([one], tmp_path / "run", "cpu")


def test_students_of_a_folder_of_colour_pictures(tmp_path):
    generator = np.random.default_rng(0)
    for number in range(40):
        path = tmp_path / ("train" if number % 2 else "test") / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (16, 16, 3), np.uint8)).save(path)
    teacher = tiny_unet(in_channels=3, out_channels=3, sample_size=16)
    save_pipeline(teacher, process(), tmp_path / "teacher")
    settings = {"train_data_dir": str(tmp_path), "teacher_sha256": "x", "loss": "lift"}
    settings["pretrained_teacher_name_or_path"] = str(tmp_path / "teacher")
    settings |= {"student_block_out_channels": (4, 4), "dataset_name": None}
    cells = [cell(**settings, scope=scope) for scope in ("channel", "sample")]
    channel, sample = train(cells, tmp_path / "run", "cpu")
    assert channel.row["fd"] != sample.row["fd"]
    assert channel.pictures["student"].shape == (8, 3, 16, 16)


def test_task_error_of_a_student_that_answers_nothing_is_one():
    evaluator = _evaluator(TEACHERS["1.2 M"]["pretrained_teacher_name_or_path"], "digits", "cpu")
    model = shrink(evaluator.teacher.config, (8, 4, 4))
    torch.nn.init.zeros_(model.conv_out.weight)
    torch.nn.init.zeros_(model.conv_out.bias)
    assert evaluator._task_error(model) == pytest.approx(1)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_students_are_recorded_on_a_gpu(monkeypatch, device):
    configs = []
    monkeypatch.setattr(
        train_module, "trainer_spec", lambda config, *_, **__: configs.append(config)
    )
    one = cell()
    train_module._trainer_spec(one, load_model(TEACHER), 2, device)
    assert [config.cuda_graphs for config in configs] == [device == "cuda"]


def test_spikes_are_counted_against_the_median_before():
    losses = np.ones(200)
    losses[[60, 100]] = 3.5
    losses[150] = 2.9
    losses[10] = 50  # too early to tell
    assert spikes(losses) == 2
    assert spikes(np.ones(20)) == 0


def test_what_the_metrics_tell():
    log = [{"a/task": 1.0, "a/weight": step / 100, "b/task": 2.0} for step in range(100)]
    log[95]["a/gradient_share/coarse"] = 0.75
    log[50]["a/gradient_share/coarse"] = 0.1
    found = of_training(log, "a")
    assert found == {"spikes": 0, "weight": pytest.approx(0.945), "coarse_share": 0.75}
    assert of_training(log, "b") == {"spikes": 0}


def test_groups_share_their_batches_and_are_not_too_many():
    cells = [cell(seed=seed, loss=loss) for loss in ("none", "mse", "lift") for seed in (0, 1)]
    groups = list(together(cells, 2))
    assert [len(group) for group in groups] == [2, 1, 2, 1]
    assert all(len({each.seed for each in group}) == 1 for group in groups)


@pytest.fixture
def study(monkeypatch):
    settings = dict(cell().settings)
    del settings["learning_rate"], settings["seed"]
    levels = {"teachers": {"T": {}}, "students": {"S": {}}, "methods": {"no KD": {"loss": "none"}}}
    tiny = Study("?", settings, **levels, rates=(1e-3, 3e-3), search=False, stages=(2,))
    monkeypatch.setitem(STUDIES, "tiny", tiny)


def options(tmp_path, *more):
    folders = ["--out", str(tmp_path / "out"), "--work_dir", str(tmp_path / "work")]
    return ["study", "tiny", "--commit", "abc", *folders, *more]


def test_a_row_can_be_trained_again(tmp_path, study, capsys):
    first = next(iter(STUDIES["tiny"].pending("tiny", {}, [0])))
    (scored,) = train([first], tmp_path / "run", "cpu")
    files = StudyFiles(tmp_path / "out", "tiny", "cpu")
    files.add([scored.row], scored.timesteps)
    before = files.rows_path.read_bytes()
    assert main(options(tmp_path, "--cell", first.hash)) == 0
    lines = capsys.readouterr().out.splitlines()[-2:]
    assert lines[0].split()[2:] == lines[1].split()[1:]  # the row's numbers, and those found now
    assert files.rows_path.read_bytes() == before
    assert main(options(tmp_path, "--cell", "nowhere")) == 2


def test_stages_are_written_while_a_cell_goes_on(tmp_path):
    cells = (cell(stages=(2, 4), loss="none", lr_scheduler="constant"),)
    train(cells, tmp_path / "run", "cpu")
    last = tmp_path / "run" / "scored-4.json"
    kept = last.read_bytes()
    last.unlink()
    files = StudyFiles(tmp_path / "out", "s", "cpu")
    for steps in (["2"], ["2", "4"]):
        keep(files, cells, tmp_path / "run", {"commit": "abc"})
        assert [row["step"] for row in files.rows()] == steps
        assert {student_strip(row) for row in files.rows()} < sheet.read(files.samples_path).keys()
        last.write_bytes(kept)
    assert teacher_strip(files.rows()[0]) in sheet.read(files.samples_path)


WORKER = """
import os, time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from benchmarks.study.run import _start_worker
pool = ProcessPoolExecutor(1, get_context("spawn"), _start_worker, ("cpu",))
print(pool.submit(os.getpid).result(), flush=True)
pool.submit(time.sleep, 600).result()
"""


def test_no_worker_outlives_a_study_that_is_killed():
    study = subprocess.Popen([sys.executable, "-c", WORKER], stdout=subprocess.PIPE, text=True)
    worker = psutil.Process(int(study.stdout.readline()))
    study.kill()
    study.wait()
    until = time.monotonic() + 60
    while worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < until
        time.sleep(0.1)


def test_no_time_left_starts_nothing(tmp_path, study, capsys):
    assert main(options(tmp_path, "--minutes", "0")) == 0
    assert "6 cells or more are left" in capsys.readouterr().out  # two rates, three seeds
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["nonsense"], "error: no study nonsense: there are capacity, "),
        (["tiny", "--methods", "nix"], "--methods: the study tiny has no 'nix', but no KD"),
    ],
)
def test_what_is_not_there_is_told(study, capsys, names, message):
    assert main(["study", *names]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "channels", "groups"),
    [
        ({"student_block_out_channels": (16, 20, 20)}, (16, 20, 20), 4),
        ({"student_block_out_channels": (12, 12, 16)}, (12, 12, 16), 4),
        ({"student_block_out_channels": (8, 8, 8)}, (8, 8, 8), 8),
        ({"student_block_out_channels": (8, 4, 4)}, (8, 4, 4), 4),
        ({"student_norm_num_groups": 2}, (8, 4, 4), 2),
        ({"prune": {"width": 0.5}}, (12, 24, 44), 4),
        ({"prune": {"width": 0.25}}, (6, 12, 22), 2),
        ({"prune": {"width": 0.15625}}, (4, 8, 14), 2),
        ({"prune": {"width": 0.15625, "norm_num_groups": 1}}, (4, 8, 14), 1),
    ],
)
def test_rows_of_before_keep_the_norm_groups_that_they_do_not_name(
    monkeypatch, settings, channels, groups
):
    students = []
    monkeypatch.setattr(
        train_module, "trainer_spec", lambda _, student, *__, **___: students.append(student)
    )
    one = cell(**settings, random_init=False)
    train_module._trainer_spec(one, load_model(TEACHER), 2, "cpu")
    config = students[0].model.config
    assert tuple(config.block_out_channels) == channels and config.norm_num_groups == groups
