import json

import pytest
import torch

from liftplace.errors import UsageError
from liftplace.evaluate import collect, evaluate
from liftplace.evaluate.config import EvaluateConfig
from liftplace.evaluate.evaluate import table
from liftplace.train.learner import NonFiniteError
from liftplace.train.models import load_model
from liftplace.train.result import save_pipeline
from tests.families.pipelines import tiny_pipeline
from tests.train.tiny import process, tiny_unet

NETWORK = """
from torch import nn

class Pooled(nn.Module):
    def forward(self, images):
        return nn.functional.adaptive_avg_pool2d(images, 2).flatten(1)
"""


@pytest.fixture(autouse=True)
def _quiet_cache(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("LIFTPLACE_CACHE", str(folder))
    (folder / "own_pooling.py").write_text(NETWORK)
    monkeypatch.syspath_prepend(folder)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    for seed in (0, 1):
        save_pipeline(tiny_unet(seed=seed), process(), folder / str(seed))
    return folder


def config(models, folder, **changes):
    return EvaluateConfig(**{
        "model": str(models / "0"), "reference_dir": "digits", "output_dir": str(folder / "out"),
        "feature_network": "own_pooling:Pooled", "num_samples": 12, "num_inference_steps": 2,
        "interval_draws": 5,
    } | changes)  # fmt: skip


def by_name(results):
    return {score["name"]: score for score in results["scores"]}


def test_results_say_what_was_scored_and_how(models, tmp_path, capsys):
    settings = config(
        models, tmp_path, metrics="fd,kid,precision,recall,is", feature_network="lite0"
    )
    results = evaluate.evaluate(settings)
    assert json.loads((tmp_path / "out" / "results.json").read_text()) == results
    assert list(by_name(results)) == ["FD-Lite0", "KID-Lite0", "precision", "recall", "IS-Lite0"]
    for score in results["scores"]:
        assert score["low"] <= score["high"] and score["floor"] is not None
    assert results["reference"]["num_images"] == results["reference"]["num_floor_images"] == 12
    assert results["sampler"]["class"] == "DDIMScheduler" and results["num_inference_steps"] == 2
    assert results["resize"]["network"] == "64 x 64, bicubic, antialiased"
    assert len(results["feature_network"]["sha256"]) == len(results["model_sha256"]) == 64
    # An untrained model is further from the digits than other digits are.
    assert by_name(results)["FD-Lite0"]["value"] > 2 * by_name(results)["FD-Lite0"]["floor"]
    assert table(results) in capsys.readouterr().out


def test_agreement_with_itself_and_with_another(models, tmp_path):
    same = config(models, tmp_path, metrics="agreement", teacher=str(models / "0"))
    rows = by_name(evaluate.evaluate(same))
    assert rows["pixel error"]["value"] == rows["feature error"]["value"] == 0
    assert rows["pixel error"]["unrelated"] > 0
    other = config(
        models, tmp_path, metrics="agreement", teacher=str(models / "1"),
        output_dir=str(tmp_path / "other"),
    )  # fmt: skip
    assert by_name(evaluate.evaluate(other))["pixel error"]["value"] > 0


def test_goes_on_after_a_kill_with_the_same_result(models, tmp_path, monkeypatch):
    monkeypatch.setattr(collect, "PART", 5)
    whole = evaluate.evaluate(config(models, tmp_path / "whole"))
    draw, drawn = evaluate._Drawer.draw, []

    def killed(self, seed, first, count):
        drawn.append(first)
        if len(drawn) == 3:
            raise KeyboardInterrupt
        return draw(self, seed, first, count)

    monkeypatch.setattr(evaluate._Drawer, "draw", killed)
    stopped = config(models, tmp_path / "stopped")
    with pytest.raises(KeyboardInterrupt):
        evaluate.evaluate(stopped)
    assert evaluate.evaluate(stopped)["scores"] == whole["scores"]
    assert drawn == [0, 5, 10, 10]


def test_classes_go_round_over_the_parts(tmp_path, monkeypatch):
    monkeypatch.setattr(collect, "PART", 4)
    folder = tiny_pipeline("UNet2DModel", tmp_path / "model", num_class_embeds=3)
    sample, asked = evaluate.Sampler.sample, []

    def seen(self, model, **options):
        asked.append(options["class_labels"])
        return sample(self, model, **options)

    monkeypatch.setattr(evaluate.Sampler, "sample", seen)
    settings = {"model": str(folder), "num_samples": 10, "feature_network": "lite0"}
    evaluate.evaluate(config(tmp_path, tmp_path, metrics="kid", **settings))
    assert asked == [[0, 1, 2, 0], [1, 2, 0, 1], [2, 0]]


def test_another_model_does_not_go_on_in_the_folder(models, tmp_path):
    evaluate.evaluate(config(models, tmp_path, metrics="fd"))
    evaluate.evaluate(config(models, tmp_path, metrics="kid"))  # other scores of the same samples
    with pytest.raises(UsageError, match="holds other samples: seed is 0 there and 1 here"):
        evaluate.evaluate(config(models, tmp_path, seed=1))
    loaded = load_model(models / "1")
    changed = tmp_path / "changed"
    save_pipeline(load_model(models / "0").model, process(), changed)
    first = config(models, tmp_path, model=str(changed), output_dir=str(tmp_path / "b"))
    evaluate.evaluate(first)
    loaded.model.save_pretrained(changed / "unet")
    with pytest.raises(UsageError, match="model_sha256"):
        evaluate.evaluate(first)


def test_a_student_of_latents_is_decoded_by_its_teachers_vae(tmp_path):
    teacher = tiny_pipeline("UNet2DConditionModel", tmp_path / "teacher")
    student = teacher / "unet"  # has no VAE, no text encoder and no scheduler of its own
    settings = {"model": str(student), "teacher": str(teacher), "num_samples": 8}
    settings |= {"feature_network": "lite0", "metrics": "kid,agreement", "prompts": ("a cat",)}
    results = evaluate.evaluate(config(tmp_path, tmp_path, **settings))
    assert results["resolution"] == 16 and results["prompts"] == ["a cat"]
    assert by_name(results)["pixel error"]["value"] == 0


def test_samples_that_are_not_finite(models, tmp_path):
    model = tiny_unet()
    with torch.no_grad():
        model.conv_out.bias.fill_(torch.nan)
    save_pipeline(model, process(), tmp_path / "broken")
    with pytest.raises(NonFiniteError, match="broken makes samples with NaN"):
        evaluate.evaluate(config(models, tmp_path, model=str(tmp_path / "broken")))


def test_too_few_real_images(models, tmp_path):
    with pytest.raises(
        UsageError, match="num_samples is 5000, but --reference_dir digits has 4000"
    ):
        evaluate.evaluate(config(models, tmp_path, num_samples=5000))


def test_a_network_that_makes_more_features_of_colour(models, tmp_path):
    folder = tiny_pipeline("UNet2DModel", tmp_path / "model")
    with pytest.raises(UsageError, match="12 features of a sample and 4 of an image.*1 channels"):
        evaluate.evaluate(config(models, tmp_path, model=str(folder)))


def test_is_needs_classes(models, tmp_path):
    with pytest.raises(UsageError, match="Pooled has no classes"):
        evaluate.evaluate(config(models, tmp_path, metrics="is"))


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"metrics": "fd,lpips"}, "metrics must be of fd, kid"),
        ({"metrics": ()}, "metrics must be of"),
        ({"num_samples": 7}, "num_samples must be at least 8, got 7"),
        ({"model": ""}, "--model is missing"),
        ({"reference_dir": ""}, "--reference_dir is missing"),
        ({"metrics": "agreement"}, "go together"),
    ],
)
def test_bad_settings(models, tmp_path, changes, message):
    with pytest.raises(UsageError, match=message):
        config(models, tmp_path, **changes).check_complete()


def test_metrics_with_commas_or_spaces():
    assert (
        EvaluateConfig(metrics="fd, kid").metrics == EvaluateConfig(metrics=("fd", "kid")).metrics
    )
