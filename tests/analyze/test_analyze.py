import json
from copy import deepcopy

import pytest
import torch

from liftplace.analyze import analyze, samples
from liftplace.analyze.config import AnalyzeConfig
from liftplace.common.errors import NonFiniteError, UsageError
from liftplace.data.config import EncodeConfig
from liftplace.data.encode import encode
from liftplace.evaluate import parts
from liftplace.models.loading import load_model
from liftplace.models.saving import save_pipeline
from tests.data.pictures import save_captions, save_images
from tests.families.pipelines import tiny_pipeline
from tests.train.tiny import process, tiny_unet

NETWORK = """
from torch import nn

class Pooled(nn.Module):
    def forward(self, images):
        return nn.functional.adaptive_avg_pool2d(images, 2).flatten(1)
"""


@pytest.fixture(autouse=True)
def _network(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("LIFTPLACE_CACHE", str(folder))
    (folder / "own_pooling.py").write_text(NETWORK)
    monkeypatch.syspath_prepend(folder)


def affine(model):
    """Its output is 0.5 t - 0.2, of an output t of the model."""
    student = deepcopy(model)
    with torch.no_grad():
        student.conv_out.weight.mul_(0.5)
        student.conv_out.bias.mul_(0.5).sub_(0.2)
    return student


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    teacher = tiny_unet(seed=0)
    small = tiny_unet(seed=1, block_out_channels=(4, 4))
    for name, model in {"teacher": teacher, "affine": affine(teacher), "small": small}.items():
        save_pipeline(model, process(), folder / name)
    return folder


def config(models, folder, **changes):
    return AnalyzeConfig(
        **{
            "teacher": str(models / "teacher"),
            "student": (str(models / "affine"),),
            "data": "digits",
            "output_dir": str(folder / "out"),
            "feature_network": "own_pooling:Pooled",
            "num_samples": 12,
            "num_inference_steps": 2,
            "num_images": 6,
            "num_timesteps": 3,
            "map_timesteps": 2,
            "group_sizes": (4, 16),
            "batch_size": 4,
        }
        | changes
    )


def test_report_json_and_pictures_of_two_students(models, tmp_path, capsys):
    students = (str(models / "affine"), str(models / "small"))
    results = analyze.analyze(config(models, tmp_path, student=students))
    written = json.loads((tmp_path / "out" / "analysis.json").read_text())
    assert written == results and (tmp_path / "out" / "report.html").is_file()
    found = results["analysis"]
    first, second = found["students"]
    assert (first["label"], second["label"]) == ("affine", "small")
    assert second["parameters"] < first["parameters"] == found["teacher_parameters"]
    assert found["elements"] == 64 and found["num_samples"] == 12
    assert found["prediction_type"] == "epsilon" and found["num_train_timesteps"] == 1000
    assert found["teacher_norms"] == first["norms"] | {"groups": 4, "channels": 2}
    assert second["advice"]["rule"] == "norms" and second["norms"]["last_forgets"]
    assert len(first["carried"]["timesteps"]) == 2 and min(first["carried"]["factor"]) > 0
    assert len(results["student_sha256"]) == 2 and results["sampler"]["class"] == "DDIMScheduler"
    # One linear fit removes all that the first does otherwise, and not what the second does.
    errors = first["errors"]
    assert errors["timesteps"] == [166, 500, 833] and errors["num_images"] == 6
    assert all(fine < 1e-9 for fine in errors["fine"]) and min(errors["total"]) > 1e-3
    assert errors["slope"][0][0] == pytest.approx([2.0, 2.0, 2.0], rel=1e-3)
    assert min(second["errors"]["fine"]) > 1e-5
    theirs = found["teacher_samples"]["scores"]
    assert [score["name"] for score in theirs] == ["FD-Pooled", "KID-Pooled"]
    assert theirs[0]["floor"] is not None
    assert first["corrected"]["scores"][0]["value"] == pytest.approx(theirs[0]["value"], rel=1e-3)
    own, path = (first[kind]["scores"][0]["value"] for kind in ("corrected", "trajectory"))
    assert path == pytest.approx(own, rel=1e-3)  # one affine map undoes this student
    assert first["plain"]["scores"][0]["value"] != pytest.approx(theirs[0]["value"], rel=1e-2)
    printed = capsys.readouterr().out
    assert (
        "LIFT explains" in printed
        and "2  small: " in printed
        and str(tmp_path / "out" / "report.html") in printed
    )


def test_nothing_is_sampled_where_nothing_is_asked_for(models, tmp_path):
    settings = config(models, tmp_path, num_samples=0, feature_network="no:such", scope="sample")
    found = analyze.analyze(settings)["analysis"]
    assert found["teacher_samples"] is None and found["students"][0]["plain"] is None
    assert found["network"] is None and not (tmp_path / "out" / "students").exists()
    analyze.analyze(settings)  # once more
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").touch()
    with pytest.raises(UsageError, match="is not empty"):
        analyze.analyze(config(models, tmp_path, num_samples=0, output_dir=str(tmp_path / "other")))


def test_goes_on_after_a_kill_with_the_same_result(models, tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "PART_SIZE", 5)
    settings = {"num_samples": 22, "student": (str(models / "small"),)}
    whole = analyze.analyze(config(models, tmp_path / "whole", **settings))
    sample_students, of_students = samples.GroupSampler.sample_students, []
    sample_teacher, of_teacher = samples.GroupSampler.sample_teacher, []

    def killed(self, fits, part):
        of_students.append(part.first)
        if len(of_students) == 4:
            raise KeyboardInterrupt
        return sample_students(self, fits, part)

    def seen(self, part):
        of_teacher.append(part.first)
        return sample_teacher(self, part)

    monkeypatch.setattr(samples.GroupSampler, "sample_students", killed)
    monkeypatch.setattr(samples.GroupSampler, "sample_teacher", seen)
    stopped = config(models, tmp_path / "stopped", **settings)
    with pytest.raises(KeyboardInterrupt):
        analyze.analyze(stopped)
    assert not (tmp_path / "stopped" / "out" / "analysis.json").exists()
    assert analyze.analyze(stopped)["analysis"] == whole["analysis"]
    assert of_teacher == [0, 5, 10, 15, 20]
    assert of_students == [0, 5, 10, 15, 15, 20]
    with pytest.raises(UsageError, match="holds other samples: seed is 0 there and 1 here"):
        analyze.analyze(config(models, tmp_path / "stopped", seed=1, **settings))


def test_the_first_samples_of_each_model_are_kept(models, tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "PART_SIZE", 5)
    kept = {}
    report = analyze.write_report

    def seen(analysis, folder):
        kept["analysis"] = analysis
        return report(analysis, folder)

    monkeypatch.setattr(analyze, "write_report", seen)
    analyze.analyze(config(models, tmp_path, num_samples=18))
    (student,), theirs = kept["analysis"].students, kept["analysis"].teacher_samples
    assert theirs.images.shape == student.plain.images.shape == (12, 1, 8, 8)
    torch.testing.assert_close(student.corrected.images, theirs.images, rtol=0, atol=1e-3)
    torch.testing.assert_close(student.trajectory.images, theirs.images, rtol=0, atol=1e-3)
    assert not torch.allclose(student.plain.images, theirs.images, atol=1e-2)


def test_a_pipeline_of_latents_with_captions(tmp_path):
    teacher = tiny_pipeline("UNet2DConditionModel", tmp_path / "teacher")
    student = tiny_pipeline("UNet2DConditionModel", tmp_path / "student", seed=1)
    images = tmp_path / "images"
    names = [f"{number}.png" for number in range(8)]
    save_images(images, names)
    save_captions(images, {name: f"picture {name}" for name in names})
    given = {"teacher": str(teacher), "student": (str(student),), "data": str(images)}
    given |= {"num_samples": 8, "prompts": ("a cat",), "guidance_scale": 2.0}
    found = analyze.analyze(config(tmp_path, tmp_path, **given))["analysis"]["students"][0]
    assert len(found["errors"]["slope"][0]) == 4 and "decoded" in found["maps"]["noisy_label"]
    encode(
        EncodeConfig(
            pretrained_teacher_name_or_path=str(teacher),
            train_data_dir=str(images),
            output_dir=str(tmp_path / "latents"),
        )
    )
    given |= {"data": str(tmp_path / "latents"), "output_dir": str(tmp_path / "out2")}
    with pytest.raises(UsageError, match="holds latents.*or give --num_samples 0"):
        analyze.analyze(config(tmp_path, tmp_path, **given))
    again = analyze.analyze(config(tmp_path, tmp_path, **given | {"num_samples": 0}))
    errors = again["analysis"]["students"][0]["errors"]
    assert errors["total"] == pytest.approx(found["errors"]["total"], rel=1e-3)


def test_samples_that_are_not_finite_are_named(models, tmp_path):
    broken = load_model(models / "teacher").model
    with torch.no_grad():
        broken.conv_out.bias.fill_(torch.nan)
    save_pipeline(broken, process(), tmp_path / "broken")
    with pytest.raises(NonFiniteError, match="samples of broken have NaN"):
        analyze.analyze(config(models, tmp_path, student=(str(tmp_path / "broken"),)))


def test_group_sizes_larger_than_a_row(models, tmp_path, capsys):
    settings = config(models, tmp_path, num_samples=0, group_sizes=(16, 65, 256))
    found = analyze.analyze(settings)["analysis"]
    assert found["students"][0]["errors"]["group_sizes"] == [16]
    assert "--group_sizes 65 256 left out: a row has 64 elements" in capsys.readouterr().out


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"num_images": 5000}, "--num_images is 5000, but --data digits has only 4000"),
        ({"num_samples": 1001, "split": "test"}, "--num_samples is 1001, but --data digits"),
        ({"group_sizes": (100,)}, "--group_sizes 100 is larger than a row, which has 64"),
        ({"num_timesteps": 1001}, "--num_timesteps is 1001, but .* has 1000 timesteps"),
    ],
)
def test_settings_that_do_not_fit(models, tmp_path, changes, message):
    with pytest.raises(UsageError, match=message):
        analyze.analyze(config(models, tmp_path, **changes))
    assert not (tmp_path / "out").exists()


def test_a_file_that_is_no_picture_is_named_before_anything_is_measured(tmp_path):
    teacher = str(tiny_pipeline("UNet2DModel", tmp_path / "teacher"))
    save_images(tmp_path / "real", [f"{number}.png" for number in range(12)])
    (tmp_path / "real" / "empty.png").touch()
    with pytest.raises(UsageError, match="cannot read image .*empty.png"):
        given = {"teacher": teacher, "student": (teacher,), "data": str(tmp_path / "real")}
        analyze.analyze(config(tmp_path, tmp_path, **given))
    assert not (tmp_path / "out").exists()


def test_a_student_of_another_shape(models, tmp_path):
    save_pipeline(tiny_unet(in_channels=3, out_channels=3), process(), tmp_path / "colour")
    with pytest.raises(UsageError, match="do not fit: in_channels is 3"):
        analyze.analyze(config(models, tmp_path, student=(str(tmp_path / "colour"),)))


def test_numbers_that_json_lacks_are_null():
    assert analyze.plain(torch.tensor([torch.nan, 1 / 3])) == [None, 0.333333]
