import diffusers
import pytest
import torch
from PIL import Image

from liftplace.models.loading import load_model
from liftplace.models.noise import DDPM_FAMILY, NoiseProcess
from liftplace.models.saving import save_pipeline
from liftplace.models.snippet import STEPS, loading_line, loading_lines, usage_snippet
from tests.families.pipelines import PIPELINES, tiny_pipeline
from tests.families.tiny import tiny_model
from tests.train.tiny import assert_same_weights

NEEDS_MORE = {"DPMSolverSDEScheduler"}  # torchsde


def pasted(snippet, monkeypatch, folder):
    """What the snippet leaves, pasted where it says, in fewer steps."""
    monkeypatch.chdir(folder)
    names = {}
    assert str(STEPS) in snippet
    exec(snippet.replace(str(STEPS), "3"), names)
    return names


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")  # diffusers'
@pytest.mark.parametrize("name", PIPELINES)
def test_every_familys_snippet_makes_an_image(name, tmp_path, monkeypatch):
    teacher = tiny_pipeline(name, tmp_path / "teacher")
    loaded = load_model(teacher)
    save_pipeline(loaded.model, loaded.process(), tmp_path / "run", teacher)
    monkeypatch.chdir(tmp_path)
    names = pasted(usage_snippet("run", loaded.model), monkeypatch, tmp_path)
    assert Image.open(tmp_path / "sample.png").size == names["image"].size


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("name", sorted(DDPM_FAMILY | {"FlowMatchEulerDiscreteScheduler"}))
def test_pixels_of_every_scheduler(name, tmp_path, monkeypatch):
    """Noise prediction that is exact for images of 0.5 gives such images."""
    try:
        scheduler = getattr(diffusers, name)()
    except ImportError:
        pytest.skip(f"{name} needs a package that is not here")
    model = tiny_model("UNet2DModel")
    save_pipeline(model, NoiseProcess(dict(scheduler.config) | {"_class_name": name}), tmp_path)
    scheduler.save_pretrained(tmp_path / "scheduler")
    index = tmp_path / "model_index.json"
    index.write_text(index.read_text().replace("DDPMScheduler", name))
    names = pasted(usage_snippet(tmp_path, model), monkeypatch, tmp_path)
    pipeline = names["pipeline"]
    assert_same_weights(pipeline.unet, model)
    monkeypatch.setattr(pipeline.unet, "forward", exact_for_half(pipeline.scheduler))
    made = torch.tensor(pipeline(num_inference_steps=20, output_type="np").images) * 2 - 1
    assert (made - 0.5).abs().max() < 0.05


def exact_for_half(scheduler):
    """The noise in x_t, or the velocity, where every clean image is 0.5 everywhere."""

    def forward(noisy, timestep, *arguments, **options):
        if isinstance(scheduler, diffusers.FlowMatchEulerDiscreteScheduler):
            sigma = timestep / 1000
            output = (noisy - 0.5) / sigma
        else:
            kept = scheduler.alphas_cumprod[int(timestep)]
            output = (noisy - kept.sqrt() * 0.5) / (1 - kept).sqrt()
        return diffusers.models.unets.unet_2d.UNet2DOutput(sample=output)

    return forward


@pytest.mark.parametrize("prediction_type", ["epsilon", "flow"])
@pytest.mark.parametrize("has_index", [True, False])
def test_classes_of_pixels(prediction_type, has_index, tmp_path, monkeypatch):
    model = tiny_model("UNet2DModel", num_class_embeds=3)
    process = NoiseProcess.new(prediction_type)
    save_pipeline(model, process, tmp_path)
    if has_index:  # whose pipeline gives no classes
        diffusers.DDPMPipeline(model, process.scheduler).save_pretrained(tmp_path)
    names = pasted(usage_snippet(tmp_path, model), monkeypatch, tmp_path)
    assert names["images"].shape == (1, 3, 8, 8) and names["images"].isfinite().all()


def test_dit_of_a_scheduler_that_scales(tmp_path, monkeypatch):
    folder = tiny_pipeline("DiTTransformer2DModel", tmp_path / "teacher")
    pipeline = diffusers.DiTPipeline.from_pretrained(folder)
    pipeline.scheduler = diffusers.EulerDiscreteScheduler.from_config(pipeline.scheduler.config)
    pipeline.save_pretrained(folder)
    names = pasted(usage_snippet(folder, load_model(folder).model), monkeypatch, tmp_path)
    assert isinstance(names["pipeline"].scheduler, diffusers.DDIMScheduler)


def test_one_line_loads_it(tmp_path):
    model = tiny_model("UNet2DModel", seed=2)
    save_pipeline(model, NoiseProcess.new("v_prediction"), tmp_path)
    line = loading_line(tmp_path, model)
    assert line.endswith(f'pipeline = DDPMPipeline.from_pretrained("{tmp_path}")')
    exec(line, names := {})
    assert_same_weights(names["pipeline"].unet, model)
    of_hub = loading_lines(tmp_path, model, "our/student")
    assert of_hub[1] == 'pipeline = DDPMPipeline.from_pretrained("our/student")'


def test_a_model_without_a_pipeline(tmp_path):
    model = tiny_model("SD3Transformer2DModel")
    save_pipeline(model, NoiseProcess.new("flow"), tmp_path)
    exec(usage_snippet(tmp_path, model), names := {})
    assert_same_weights(names["model"], model)
