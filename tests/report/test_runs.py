import json
from dataclasses import replace

import pytest
from accelerate.state import AcceleratorState

from liftplace.common.errors import UsageError
from liftplace.data import load_dataset
from liftplace.report.runs import read_runs
from liftplace.train import fit, new_trainers
from tests.report.run_folders import falling, write_metrics, write_run
from tests.train.tiny import RESOLUTION, config_for, encoder, process, spec_for, tiny_unet


@pytest.fixture(autouse=True)
def _new_accelerator():
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def test_a_run_is_what_the_trainer_wrote(tmp_path):
    folder = write_run(tmp_path / "a", falling(6, every=2), samples_at=(2, 6))
    (run,) = read_runs((folder,))
    assert run.label == "a" and run.state == "finished: step 6 of 6" and run.effective_batch == 8
    assert run.curves["loss"].steps.tolist() == [2, 4, 6]
    assert run.curves["loss"].values.tolist() == [1 / 2, 1 / 4, 1 / 6]
    assert run.settings["learning_rate"] == 1e-2 and run.objective["group_size"] == 4
    assert {step: path.name for step, path in run.samples.items()} == {
        2: "student-000002.png",
        6: "student-000006.png",
    }


def test_trainers_of_a_run_that_was_resumed(tmp_path):
    data = load_dataset("digits", resolution=RESOLUTION)
    config = config_for(
        tmp_path / "both",
        max_train_steps=3,
        validation_steps=3,
        num_validation_images=2,
        num_inference_steps=1,
    )
    for step, resume in ((3, None), (6, "latest")):
        config = replace(config, max_train_steps=step, resume_from_checkpoint=resume)
        specs = [spec_for(config, "place", group_size=4), spec_for(config, "none")]
        trainers = new_trainers(specs, config)
        fit(trainers, dataset=data, encoder=encoder(), process=process(), config=config,
            teacher=tiny_unet())  # fmt: skip
    place, none = read_runs((config.output_dir,))
    assert (place.label, none.label) == ("both: place", "both: none")
    assert place.state == none.state == "finished, resumed: step 6 of 6"
    assert place.objective["loss"] == "place" and none.objective["loss"] == "none"
    assert place.curves["loss"].steps.tolist() == [1, 2, 3, 4, 5, 6]
    assert "coarse" in place.curves and "coarse" not in none.curves
    assert list(none.samples) == [3, 6] and none.samples[3].name == "none-000003.png"


def test_without_a_record_the_losses_tell_the_trainers(tmp_path):
    write_metrics(tmp_path, [{"step": 1, "mse/loss": 1.0, "mse/task": 2.0, "lift/loss": 3.0}])
    mse, lift = read_runs((str(tmp_path),))
    assert mse.label.endswith(": mse") and mse.curves["task"].values.tolist() == [2]
    assert list(lift.curves) == ["loss"] and lift.state == "step 1" and lift.settings == {}


def test_settings_come_from_the_yaml_where_there_is_no_record(tmp_path):
    folder = write_run(tmp_path / "a", falling(3))
    (tmp_path / "a" / "run.json").unlink()
    (tmp_path / "a" / "liftplace_config.json").write_text(json.dumps({"prune": {"width": 0.5}}))
    (run,) = read_runs((folder,))
    assert run.settings["max_train_steps"] == 6 and run.state == "unfinished: step 3 of 6"
    assert run.settings["prune: width"] == 0.5


def test_a_line_that_is_being_written_is_left_out(tmp_path):
    folder = write_run(tmp_path / "a", falling(3))
    metrics = tmp_path / "a" / "metrics.jsonl"
    metrics.write_text(metrics.read_text()[:-10])
    (run,) = read_runs((folder,))
    assert run.last_step == 2


def test_the_later_line_of_a_step_holds(tmp_path):
    write_metrics(tmp_path, [{"step": s, "loss": v} for s, v in ((1, 9.0), (2, 8.0), (1, 7.0))])
    (run,) = read_runs((str(tmp_path),))
    assert run.curves["loss"].values.tolist() == [7, 8]


def test_values_that_are_not_finite_are_left_out_and_counted(tmp_path):
    lines = [{"step": s, "gradient_norm": v} for s, v in enumerate((1.0, float("inf"), 3.0), 1)]
    lines += [{"step": 4, "task": float("nan")}]
    write_metrics(tmp_path, lines)
    (run,) = read_runs((str(tmp_path),))
    curve = run.curves["gradient_norm"]
    assert curve.steps.tolist() == [1, 3] and curve.left_out == 1 and "task" not in run.curves


def test_labels_are_as_short_as_they_can_be(tmp_path):
    folders = [tmp_path / "x" / "run", tmp_path / "y" / "run"]
    for folder in folders:
        write_metrics(folder, falling(1))
    assert [run.label for run in read_runs(tuple(map(str, folders)))] == ["x/run", "y/run"]
    assert [run.label for run in read_runs((str(folders[0]),))] == ["run"]


def test_a_run_without_a_step_stands_beside_others_but_not_alone(tmp_path):
    folder, empty = write_run(tmp_path / "a", falling(3)), write_run(tmp_path / "b", [])
    (tmp_path / "b" / "metrics.jsonl").touch()
    assert [run.state for run in read_runs((folder, empty))][1] == "nothing logged yet"
    with pytest.raises(UsageError, match="no step is logged yet in .*b: wait"):
        read_runs((empty,))


def test_what_is_no_run_is_named(tmp_path):
    folder = write_run(tmp_path / "a", falling(3))
    with pytest.raises(UsageError, match="RUN nowhere is no folder"):
        read_runs((folder, "nowhere"))
    with pytest.raises(UsageError, match="holds no metrics.jsonl"):
        read_runs((str(tmp_path),))
    with pytest.raises(UsageError, match="given 2 times"):
        read_runs((folder, f"{folder}/../a"))


@pytest.mark.parametrize("line", ["garbage", "[1]", '{"loss": 1.0}', '{"step": null}'])
def test_a_broken_line_is_named(tmp_path, line):
    folder = write_run(tmp_path / "a", falling(1))
    with open(tmp_path / "a" / "metrics.jsonl", "a") as file:
        file.write(f"{line}\n")
    with pytest.raises(UsageError, match="metrics.jsonl, line 2 is no line of metrics"):
        read_runs((folder,))


@pytest.mark.parametrize("name", ["run.json", "liftplace_config.json"])
@pytest.mark.parametrize("text", ["{", "[]"])
def test_a_broken_record_is_named(tmp_path, name, text):
    folder = write_run(tmp_path / "a", falling(1))
    (tmp_path / "a" / name).write_text(text)
    with pytest.raises(UsageError, match=f"cannot read .*{name}"):
        read_runs((folder,))
