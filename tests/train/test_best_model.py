import json
import math
import os
import shutil
from pathlib import Path

import pytest
from accelerate import Accelerator

from liftplace.evaluate.evaluator import Score
from liftplace.models.loading import load_model
from liftplace.train.best_model import BestModel
from liftplace.train.trainer import ModelTrainer
from tests.train.tiny import assert_same_weights, config_for, process, spec_for

BASIS = {"num_samples": 12}


def trainer():
    spec = spec_for(config_for("unused", use_ema=False))
    return ModelTrainer(spec, Accelerator(step_scheduler_with_optimizer=False))


def best(folder, **changes):
    standard = {"folder": folder / "best", "metric": "fd", "basis": BASIS, "process": process()}
    return BestModel(**standard | changes)


def scores(value, better="lower"):
    return {"fd": Score("FD-Lite0", value, None, None, better)}


def record(folder):
    return json.loads((folder / "best" / "best.json").read_text())


def test_the_best_is_a_model_with_its_scores(tmp_path):
    trained = trainer()
    best(tmp_path).keep(trained, 3, scores(5.0))
    assert_same_weights(load_model(tmp_path / "best").model, trained.model)
    found = record(tmp_path)
    assert (found["step"], found["metric"], found["value"]) == (3, "fd", 5.0)
    assert found["scores"] == {"FD-Lite0": {"value": 5.0, "better": "lower"}}
    assert [path.name for path in tmp_path.iterdir()] == ["best"]


@pytest.mark.parametrize(
    ("better", "value", "expected"),
    [
        ("lower", 4.9, True),
        ("lower", 5.0, False),
        ("lower", 5.1, False),
        ("higher", 5.1, True),
        ("higher", 4.9, False),
        ("lower", math.nan, False),
        ("higher", math.inf, False),
    ],
)
def test_only_a_better_one_takes_its_place(tmp_path, better, value, expected):
    best(tmp_path).keep(trainer(), 3, scores(5.0, better))
    assert best(tmp_path).is_better(scores(value, better)) is expected  # as a resumed run asks


def test_the_first_finite_one_is_the_best(tmp_path):
    assert best(tmp_path).is_better(scores(1e9))
    assert not best(tmp_path).is_better(scores(math.nan))


def test_one_that_was_scored_otherwise_is_not_compared(tmp_path):
    best(tmp_path).keep(trainer(), 3, scores(5.0))
    assert best(tmp_path, basis={"num_samples": 24}).is_better(scores(6.0))


class Killed(BaseException):
    pass


@pytest.mark.parametrize(
    ("moment", "expected"),
    [(".best.json.partial", 3), ("best", 3), (".best.partial", 7), ("cleaning up", 7)],
)
def test_killed_at_any_moment_one_of_both_is_there(tmp_path, monkeypatch, moment, expected):
    best(tmp_path).keep(trainer(), 3, scores(5.0))

    def replace_or_die(source, target):
        if Path(source).name == moment:
            raise Killed
        os.rename(source, target)

    def remove_or_die(path, **options):
        if Path(path).name == ".best.old":
            raise Killed
        remove(path, **options)

    remove = shutil.rmtree
    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", replace_or_die)
        patched.setattr(shutil, "rmtree", remove_or_die)
        with pytest.raises(Killed):
            best(tmp_path).keep(trainer(), 7, scores(4.0))
    assert not best(tmp_path).is_better(scores(9.0))
    assert record(tmp_path)["step"] == expected
    load_model(tmp_path / "best")
    assert [path.name for path in tmp_path.iterdir()] == ["best"]
