import json
from dataclasses import replace

import pytest

from liftplace.common.errors import UsageError
from liftplace.common.settings import read_yaml
from liftplace.train.config import DistillConfig
from liftplace.train.run_folder import (
    RECORD,
    SETTINGS,
    JsonLinesTracker,
    check_output_dir,
    check_same_run,
    claim_output_dir,
    forget_after,
    read_metrics,
)
from tests.train.tiny import config_for

OBJECTIVES = {"student": {"loss": "place", "eps": 1e-7}}


@pytest.fixture
def config(tmp_path):
    return config_for(tmp_path / "run")


def resumed(config, **changes):
    return replace(config, resume_from_checkpoint="latest", **changes)


def test_new_and_empty_folders_may_be_claimed(config, tmp_path):
    check_output_dir(config)
    assert not (tmp_path / "run").exists()
    (tmp_path / "run").mkdir()
    check_output_dir(config)
    claim_output_dir(config, OBJECTIVES, 8)
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [SETTINGS, RECORD]


def test_config_yaml_gives_the_run_again(config, tmp_path):
    claim_output_dir(config, OBJECTIVES, 8)
    settings = read_yaml(tmp_path / "run" / SETTINGS, DistillConfig)
    assert DistillConfig(**settings) == config


def test_folder_of_another_run_is_refused_and_left_alone(config, tmp_path):
    claim_output_dir(config, OBJECTIVES, 8)
    record = (tmp_path / "run" / RECORD).read_bytes()
    with pytest.raises(UsageError, match="holds another run.*--resume_from_checkpoint latest"):
        check_output_dir(config)
    with pytest.raises(UsageError, match="holds another run: its learning_rate is 0.01, not 0.5"):
        check_output_dir(resumed(config, learning_rate=0.5))
    with pytest.raises(UsageError, match="holds another run: its student is"):
        check_same_run(resumed(config), {"student": {"loss": "mse"}}, 8)
    with pytest.raises(UsageError, match="its steps see 8 images, not 16: keep train_batch_size"):
        check_same_run(resumed(config), OBJECTIVES, 16)
    assert (tmp_path / "run" / RECORD).read_bytes() == record


def test_settings_that_are_newer_than_the_record_had_their_defaults(config, tmp_path):
    claim_output_dir(config, OBJECTIVES, 8)
    file = tmp_path / "run" / RECORD
    record = json.loads(file.read_text())
    del record["settings"]["kd_space"], record["settings"]["seed"]
    file.write_text(json.dumps(record))
    check_output_dir(resumed(config))
    with pytest.raises(UsageError, match="its kd_space is prediction, not sample"):
        check_output_dir(resumed(config, kd_space="sample"))


def test_same_run_may_be_resumed_and_prolonged(config):
    claim_output_dir(config, OBJECTIVES, 8)
    check_output_dir(resumed(config))
    longer = resumed(config, max_train_steps=60, checkpointing_steps=7)
    check_output_dir(longer)
    check_same_run(longer, OBJECTIVES, 8)
    claim_output_dir(longer, OBJECTIVES, 8)


@pytest.mark.parametrize("resume", [None, "latest"])
def test_folder_with_something_else_is_refused(config, tmp_path, resume):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").write_text("years of work")
    with pytest.raises(UsageError, match="is not empty and holds no run"):
        check_output_dir(replace(config, resume_from_checkpoint=resume))


def test_file_in_place_of_the_folder(config, tmp_path):
    (tmp_path / "run").write_text("a file")
    with pytest.raises(UsageError, match="is a file: name a folder"):
        check_output_dir(config)


def test_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot write to --output_dir"):
        claim_output_dir(config_for(tmp_path / "file" / "run"), OBJECTIVES, 8)


def test_damaged_record(config, tmp_path):
    claim_output_dir(config, OBJECTIVES, 8)
    (tmp_path / "run" / RECORD).write_text("{")
    with pytest.raises(UsageError, match="cannot read .*run.json"):
        check_output_dir(resumed(config))


def test_lines_come_back(tmp_path):
    tracker = JsonLinesTracker(tmp_path / "metrics.jsonl")
    tracker.log({"loss": 0.1}, step=1)
    tracker.log({"loss": 1e-9}, step=2)
    assert read_metrics(tracker.path) == [{"step": 1, "loss": 0.1}, {"step": 2, "loss": 1e-9}]


def test_later_lines_and_a_line_cut_off_are_dropped(tmp_path):
    tracker = JsonLinesTracker(tmp_path / "metrics.jsonl")
    for step in (1, 2, 3):
        tracker.log({"loss": step / 7}, step=step)
    before = tracker.path.read_text().splitlines(keepends=True)
    with open(tracker.path, "a") as file:
        file.write('{"step": 4, "lo')  # killed while writing
    assert [line["step"] for line in read_metrics(tracker.path)] == [1, 2, 3]
    forget_after(tracker.path, 2)
    assert tracker.path.read_text() == "".join(before[:2])


def test_nothing_to_forget(tmp_path):
    forget_after(tmp_path / "metrics.jsonl", 2)
    assert not any(tmp_path.iterdir())
