import json
import re

import numpy as np
import pytest
import scipy.linalg
import torch
from safetensors.torch import load_file

from liftplace.common.errors import NonFiniteError, UsageError
from liftplace.evaluate import evaluate, parts
from liftplace.evaluate.clip import ClipSimilarity
from liftplace.evaluate.config import EvaluateConfig
from liftplace.evaluate.evaluate import table
from liftplace.evaluate.sampling import Sampler
from liftplace.evaluate.subsets import shuffled
from liftplace.models.loading import load_model
from liftplace.models.saving import save_pipeline
from tests.data.pictures import save_captions, save_images
from tests.evaluate.tiny_clip import tiny_clip
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
    return EvaluateConfig(
        **{
            "model": str(models / "0"),
            "reference_dir": "digits",
            "output_dir": str(folder / "out"),
            "feature_network": "own_pooling:Pooled",
            "num_samples": 12,
            "num_inference_steps": 2,
            "interval_draws": 5,
        }
        | changes
    )


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
    assert by_name(results)["FD-Lite0"]["value"] > 1.5 * by_name(results)["FD-Lite0"]["floor"]
    assert "12 samples are too few for the 64 components" in table(results)
    assert table(results) in capsys.readouterr().out


def test_agreement_with_itself_and_with_another(models, tmp_path):
    same = config(models, tmp_path, metrics="agreement", teacher=str(models / "0"))
    rows = by_name(evaluate.evaluate(same))
    assert rows["pixel error"]["value"] == rows["feature error"]["value"] == 0
    assert rows["pixel error"]["unrelated"] > 0
    other = config(
        models,
        tmp_path,
        metrics="agreement",
        teacher=str(models / "1"),
        output_dir=str(tmp_path / "other"),
    )
    assert by_name(evaluate.evaluate(other))["pixel error"]["value"] > 0


def test_goes_on_after_a_kill_with_the_same_result(models, tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "PART_SIZE", 5)
    whole = evaluate.evaluate(config(models, tmp_path / "whole"))
    sample, firsts = evaluate.PartSampler.__call__, []

    def killed(self, part):
        firsts.append(part.first)
        if len(firsts) == 3:
            raise KeyboardInterrupt
        return sample(self, part)

    monkeypatch.setattr(evaluate.PartSampler, "__call__", killed)
    stopped = config(models, tmp_path / "stopped")
    with pytest.raises(KeyboardInterrupt):
        evaluate.evaluate(stopped)
    assert evaluate.evaluate(stopped)["scores"] == whole["scores"]
    assert firsts == [0, 5, 10, 10]


def test_classes_go_round_over_the_parts(tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "PART_SIZE", 4)
    folder = tiny_pipeline("UNet2DModel", tmp_path / "model", num_class_embeds=3)
    labels, asked = Sampler._labels, []

    def seen(self, *arguments):
        asked.append(labels(self, *arguments).tolist())
        return labels(self, *arguments)

    monkeypatch.setattr(Sampler, "_labels", seen)
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
    with pytest.raises(
        UsageError, match="12 features of a sample and the reference digits has 4 of .* 1 channels"
    ):
        evaluate.evaluate(config(models, tmp_path, model=str(folder)))


def test_statistics_of_real_images_score_as_the_images_do(models, tmp_path):
    file = tmp_path / "digits.safetensors"
    metrics = {"metrics": "fd,kid,precision,recall", "split": "test"}
    images = config(models, tmp_path / "a", save_reference_stats=str(file), **metrics)
    first = evaluate.evaluate(images)
    assert first["reference"]["split"] == "test"
    with pytest.raises(UsageError, match="exists: give it as --reference_stats"):
        evaluate.evaluate(images)
    again = config(models, tmp_path / "b", reference_dir="", reference_stats=str(file), **metrics)
    second = evaluate.evaluate(again)
    assert second["scores"] == first["scores"]
    assert second["resize"] == first["resize"]
    assert second["reference"]["identity"] == first["reference"]["identity"]
    assert second["reference"]["stats"] == str(file) and len(second["reference"]["sha256"]) == 64


def test_splits_are_other_images(models, tmp_path):
    rows = [
        by_name(evaluate.evaluate(config(models, tmp_path / split, split=split, metrics="kid")))
        for split in ("train", "test")
    ]
    assert rows[0]["KID-Pooled"]["value"] != rows[1]["KID-Pooled"]["value"]


def test_moments_of_another_program(models, tmp_path, capsys):
    """Against scipy's matrix square root, on the features that are in the folder."""
    real = np.random.default_rng(0).normal(size=(50, 4))
    file = tmp_path / "stats.npz"
    np.savez(file, mu=real.mean(0), sigma=np.cov(real, rowvar=False))
    settings = config(models, tmp_path, reference_dir="", reference_stats=str(file), metrics="fd")
    results = evaluate.evaluate(settings)
    (score,) = results["scores"]
    parts = (tmp_path / "out" / "samples").glob("*.safetensors")
    ours = torch.cat([load_file(part)["features"] for part in parts]).double().numpy()
    covariance = np.cov(ours, rowvar=False)
    root = scipy.linalg.sqrtm(np.cov(real, rowvar=False) @ covariance)
    traces = np.trace(np.cov(real, rowvar=False) + covariance - 2 * root.real)
    expected = ((real.mean(0) - ours.mean(0)) ** 2).sum() + traces
    assert score["value"] == pytest.approx(expected, rel=1e-6)
    assert score["low"] < score["high"] and score["floor"] is None
    assert results["reference"]["num_images"] is None
    assert f"against {file}" in capsys.readouterr().out


@pytest.mark.parametrize("precision, factor", [("bf16", 2**-8), ("fp16", 2**-11)])
def test_mixed_precision_is_near_and_not_the_same(models, tmp_path, precision, factor):
    def features(name, **changes):
        settings = config(models, tmp_path / name, metrics="fd", **changes)
        results = evaluate.evaluate(settings)
        file = tmp_path / name / "out" / "samples" / "00000.safetensors"
        return results, load_file(file)["features"]

    whole, exact = features("whole")
    half, rounded = features("half", mixed_precision=precision)
    assert half["mixed_precision"] == precision
    assert half["model_sha256"] == whole["model_sha256"]  # of the weights on disk
    difference = (rounded - exact).abs().max().item()
    assert 0 < difference < 64 * factor
    with pytest.raises(UsageError, match="mixed_precision is no there"):
        features("whole", mixed_precision=precision)


def test_clip_scores_samples_against_their_prompts(tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "PART_SIZE", 5)
    teacher = tiny_pipeline("UNet2DConditionModel", tmp_path / "teacher")
    settings = {"model": str(teacher), "metrics": "kid,clip", "prompts": ("a red cat", "a dog")}
    settings |= {"feature_network": "lite0", "clip_model": str(tiny_clip(tmp_path / "clip"))}
    seen, forward = [], ClipSimilarity.forward

    def recorded(self, images, captions):
        seen.append(list(captions))
        found.append(forward(self, images, captions))
        return found[-1]

    found = []
    monkeypatch.setattr(ClipSimilarity, "forward", recorded)
    results = evaluate.evaluate(config(tmp_path, tmp_path, **settings))
    row = by_name(results)["CLIP score"]
    assert sum(seen, []) == ["a red cat", "a dog"] * 6
    assert row["value"] == pytest.approx(torch.cat(found).mean().item(), rel=1e-6)
    assert row["better"] == "higher" and len(results["clip_model"]["sha256"]) == 64
    assert results["resize"]["clip_model"] == "8 x 8, bicubic, antialiased"
    again = evaluate.evaluate(config(tmp_path, tmp_path, **settings))
    assert again["scores"] == results["scores"] and len(seen) == 3  # nothing was sampled again


def test_clip_needs_captions(models, tmp_path):
    settings = {"metrics": "clip", "clip_model": str(tiny_clip(tmp_path / "clip"))}
    with pytest.raises(UsageError, match="compares samples with --prompts: give them"):
        evaluate.evaluate(config(models, tmp_path, **settings))


def test_prompts_are_the_captions_of_the_real_images(tmp_path, capsys):
    teacher = tiny_pipeline("UNet2DConditionModel", tmp_path / "teacher")
    captions = {f"{number:02}.png": f"a cat {number % 3}" for number in range(16)}
    save_images(tmp_path / "images", captions)
    save_captions(tmp_path / "images", captions)
    settings = {"model": str(teacher), "reference_dir": str(tmp_path / "images"), "num_samples": 8}
    settings |= {"metrics": "kid,clip", "clip_model": str(tiny_clip(tmp_path / "clip"))}
    file = str(tmp_path / "stats.safetensors")
    first = evaluate.evaluate(config(tmp_path, tmp_path, **settings, save_reference_stats=file))
    assert "prompts: 3 captions of the real images" in capsys.readouterr().out
    assert first["drawn"]["num_prompts"] == 3 and first["prompts"] is None
    taken = tuple(f"a cat {number % 3}" for number in shuffled(16, 8).tolist())
    given = settings | {"prompts": taken, "output_dir": str(tmp_path / "given")}
    by_hand = evaluate.evaluate(config(tmp_path, tmp_path, **given))
    assert by_hand["scores"] == first["scores"] and "drawn" not in by_hand
    # The file of statistics has them too.
    kept = settings | {"reference_dir": "", "reference_stats": file}
    kept["output_dir"] = str(tmp_path / "kept")
    again = evaluate.evaluate(config(tmp_path, tmp_path, **kept))
    assert again["scores"] == first["scores"] and again["drawn"] == first["drawn"]
    assert "conditions" not in again["reference"]


def test_classes_are_as_frequent_as_in_the_real_images(tmp_path, capsys):
    model = tiny_pipeline("UNet2DModel", tmp_path / "model", num_class_embeds=3)
    names = [f"{'abbbcccccccc'[number % 12]}/{number}.png" for number in range(12)]
    save_images(tmp_path / "images", names)
    settings = {"model": str(model), "reference_dir": str(tmp_path / "images"), "metrics": "kid"}
    results = evaluate.evaluate(config(tmp_path, tmp_path, **settings))
    assert results["drawn"]["classes"] == {"0": 1, "1": 3, "2": 8}
    assert "classes as of the real images: 0: 1, 1: 3, 2: 8" in capsys.readouterr().out
    (tmp_path / "map.json").write_text('{"a": 2, "b": 1, "c": 0}')
    other = settings | {"class_map": str(tmp_path / "map.json"), "output_dir": str(tmp_path / "m")}
    results = evaluate.evaluate(config(tmp_path, tmp_path, **other))
    assert results["drawn"]["classes"] == {"0": 8, "1": 3, "2": 1}


def test_real_images_without_captions_or_of_other_classes(tmp_path, capsys):
    save_images(tmp_path / "images", [f"{x}/{n}.png" for x in "ab" for n in range(6)])
    settings = {"reference_dir": str(tmp_path / "images"), "metrics": "kid"}
    for name, changes, message in (
        ("UNet2DConditionModel", {}, "samples of the empty prompt, because .* has no captions"),
        ("UNet2DModel", {"num_class_embeds": 3}, "all classes in turn, .* have 2 classes and .* 3"),
    ):
        settings["model"] = str(tiny_pipeline(name, tmp_path / name, **changes))
        output = str(tmp_path / f"{name} scores")
        results = evaluate.evaluate(config(tmp_path, tmp_path, **settings, output_dir=output))
        assert re.search(message, capsys.readouterr().out) and "drawn" not in results


def test_is_needs_classes(models, tmp_path):
    with pytest.raises(UsageError, match="Pooled has no classes"):
        evaluate.evaluate(config(models, tmp_path, metrics="is"))


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"metrics": "fd,lpips"}, "metrics must be of fd, fid, kid"),
        ({"metrics": "fid"}, "metrics fid needs --feature_network inception"),
        ({"metrics": ()}, "metrics must be of"),
        ({"num_samples": 7}, "num_samples must be at least 8, .* neighbours 3, got 7"),
        ({"model": ""}, "--model is missing"),
        ({"reference_dir": ""}, "--reference_dir is missing"),
        ({"metrics": "agreement"}, "go together"),
        ({"reference_stats": "a.npz"}, "both given"),
        ({"reference_dir": "", "reference_stats": "a.npy"}, "must end in .npz or .safetensors"),
        ({"reference_dir": "", "reference_stats": "a.npz"}, "--metrics kid,precision,recall"),
        ({"save_reference_stats": "a.npz"}, "must end in .safetensors"),
    ],
)
def test_bad_settings(models, tmp_path, changes, message):
    with pytest.raises(UsageError, match=message):
        config(models, tmp_path, **changes).check_complete()


def test_metrics_with_commas_or_spaces():
    assert (
        EvaluateConfig(metrics="fd, kid").metrics == EvaluateConfig(metrics=("fd", "kid")).metrics
    )


def test_a_file_that_is_no_picture_is_named_before_samples_are_drawn(models, tmp_path):
    save_images(tmp_path / "real", [f"{number}.png" for number in range(30)])
    (tmp_path / "real" / "empty.png").touch()
    with pytest.raises(UsageError, match="cannot read image .*empty.png"):
        evaluate.evaluate(config(models, tmp_path, reference_dir=str(tmp_path / "real")))
    assert not (tmp_path / "out").exists()
