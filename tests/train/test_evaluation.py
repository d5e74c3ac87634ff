import json
import math
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator

from liftplace.cli import main
from liftplace.common.errors import UsageError
from liftplace.data import CachedLatents, load_dataset
from liftplace.evaluate.sampling import Sampler
from liftplace.train.evaluation import ValidationCallback
from liftplace.train.run_folder import read_metrics
from liftplace.train.trainer import ModelTrainer
from tests.train.tiny import config_for, encoder, process, spec_for

SETTINGS = {
    "evaluation_steps": 2,
    "num_evaluation_samples": 12,
    "num_inference_steps": 2,
    "validation_prompts": None,
}


def prepared(folder, **changes):
    config = config_for(folder, **SETTINGS | changes)
    accelerator = Accelerator(step_scheduler_with_optimizer=False)
    return config, ModelTrainer(spec_for(config), accelerator), accelerator


def callback_for(config, dataset, accelerator, *trainers):
    sampler = Sampler(process(), encoder())
    return ValidationCallback(list(trainers), dataset, sampler, config, accelerator)


def run(*flags: str) -> None:
    with pytest.raises(SystemExit) as exited:
        main(list(flags))
    assert exited.value.code == 0


def test_scores_while_training_are_those_of_liftplace_evaluate(tmp_path, teacher_folder):
    trained = tmp_path / "run"
    flags = (
        "--dataset_name digits --student_block_out_channels 4 4 --max_train_steps 3 --use_ema "
        "--evaluation_steps 2 --evaluation_metrics fd,kid,recall --num_evaluation_samples 150 "
        "--num_inference_steps 2 --seed 3 --checkpointing_steps 0 --report_to none "
        "--logging_steps 5"
    )
    teacher = ("--pretrained_teacher_name_or_path", str(teacher_folder))
    run("distill", *teacher, "--output_dir", str(trained), *flags.split())
    scored = tmp_path / "scores"
    flags = (
        "--reference_dir digits --metrics fd,kid,recall --num_samples 150 --num_inference_steps 2 "
        "--seed 3 --interval_draws 2"
    )
    run("evaluate", "--model", str(trained), "--output_dir", str(scored), *flags.split())
    lines = read_metrics(trained / "metrics.jsonl")
    assert [line["step"] for line in lines] == [2, 3]
    results = json.loads((scored / "results.json").read_text())
    assert len(results["scores"]) == 3
    for row in results["scores"]:
        found = lines[-1][f"evaluation/{row['name']}"]
        assert found == pytest.approx(row["value"], rel=1e-3, abs=1e-4)
    card = (trained / "README.md").read_text()
    assert f"| FD-Lite0 | {lines[-1]['evaluation/FD-Lite0']:.5g} |" in card


def test_samples_that_are_not_finite_score_nan_and_are_never_best(tmp_path, digits, capsys):
    config, trainer, accelerator = prepared(tmp_path, metric_for_best_model="kid")
    with torch.no_grad():
        trainer.ema.shadow_params[0].fill_(math.nan)  # the final weights are the average
    callback = callback_for(config, digits, accelerator, trainer)
    found = callback(trainer, 2)
    assert set(found) == {"evaluation/FD-Lite0", "evaluation/KID-Lite0"}
    assert all(math.isnan(value) for value in found.values())
    assert "step 2: FD-Lite0, KID-Lite0 of place is not finite" in capsys.readouterr().out
    assert not (tmp_path / "best").exists()


def test_an_evaluation_is_of_the_final_weights_and_leaves_the_training_as_it_was(tmp_path, digits):
    config, trainer, accelerator = prepared(tmp_path)
    callback = callback_for(config, digits, accelerator)
    first = callback.scores(trainer)
    before = {name: weight.clone() for name, weight in trainer.model.state_dict().items()}
    state = torch.get_rng_state()
    with torch.no_grad():
        for average in trainer.ema.shadow_params:
            average.mul_(2)
    second = callback.scores(trainer)
    assert first["fd"].value != second["fd"].value
    assert first["fd"].low is None
    assert callback.scores(trainer)["fd"].value == second["fd"].value  # the same noise
    after = trainer.model.state_dict()
    assert all(torch.equal(weight, after[name]) for name, weight in before.items())
    assert torch.equal(state, torch.get_rng_state())


def test_other_images_can_be_the_reference(tmp_path, digits):
    config, trainer, accelerator = prepared(tmp_path)
    of_training = callback_for(config, digits, accelerator).scores(trainer)["fd"].value
    images = load_dataset("digits", resolution=8, split="test")
    elsewhere = callback_for(config, images, accelerator).scores(trainer)["fd"].value
    named, _, _ = prepared(tmp_path, reference_dir="digits")
    by_name = callback_for(named, images, accelerator).scores(trainer)["fd"].value
    assert by_name == of_training != elsewhere


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"num_evaluation_samples": 5000},
            "is 5000, .* --num_evaluation_samples 4000 or less$",
        ),
        ({"feature_network": "none"}, "there is no feature_network 'none'"),
    ],
)
def test_what_cannot_be_scored_is_refused_before_the_run(tmp_path, digits, changes, message):
    config, _, accelerator = prepared(tmp_path, **changes)
    with pytest.raises(UsageError, match=message):
        callback_for(config, digits, accelerator)
    assert not any(Path(tmp_path).iterdir())


def test_latents_are_no_images_to_compare_with(tmp_path):
    config, _, accelerator = prepared(tmp_path)
    latents = CachedLatents.__new__(CachedLatents)  # what it holds is not looked at
    with pytest.raises(UsageError, match="the dataset holds latents.*--reference_dir"):
        callback_for(config, latents, accelerator)
