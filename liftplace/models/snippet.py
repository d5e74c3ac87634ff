"""The Python that loads and samples a saved model with diffusers alone, to be pasted."""

import json
from pathlib import Path

from torch import nn

from liftplace.families import Family, family_of_model
from liftplace.models.saving import INDEX

STEPS = 50
# DDPMPipeline knows no other: the rest scale the model's input, or take no generator in a step.
OF_DDPM_PIPELINE = {
    "DDIMParallelScheduler",
    "DDIMScheduler",
    "DDPMParallelScheduler",
    "DDPMScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "FlowMatchEulerDiscreteScheduler",
}
BINS = (32, 64, 128, 256)  # sizes of latents whose aspect ratios PixArt's pipelines know
# DiTPipeline takes its scaled sample on as the sample.
SCALED = {
    "EulerAncestralDiscreteScheduler",
    "EulerDiscreteScheduler",
    "HeunDiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "LMSDiscreteScheduler",
}
LOOP = """\
scheduler.set_timesteps({steps})
images = torch.randn(1, {channels}, {size}, {size})
with torch.no_grad():
    for t in scheduler.timesteps:
        output = model(images, t{conditions}).sample[:, :{channels}]
        images = scheduler.step(output, t, images).prev_sample"""


def loading_lines(folder: str | Path, model: nn.Module, name: str | None = None) -> list[str]:
    """The lines that load what `save_pipeline` left in a folder, imports first.

    Args:
        folder: of the model.
        model: that was saved there.
        name: that the lines have for the folder, such as that of its repository on the Hub.
    """
    family, where = family_of_model(model), _quoted(name or folder)
    index = Path(folder) / INDEX
    if not index.is_file():
        return _load_model(family, where)
    pipeline = json.loads(index.read_text(encoding="utf-8"))["_class_name"]
    scheduler, options = _scheduler(folder), ""
    imported = [pipeline]
    if pipeline == "DDPMPipeline" and scheduler not in OF_DDPM_PIPELINE:
        imported = [pipeline := "DDIMPipeline"]  # which makes a DDIMScheduler of any
    elif pipeline == "DiTPipeline" and scheduler in SCALED:
        imported = ["DDIMScheduler", pipeline]
        options = f', scheduler=DDIMScheduler.from_pretrained({where}, subfolder="scheduler")'
    line = f"pipeline = {pipeline}.from_pretrained({where}{options})"
    return [f"from diffusers import {', '.join(imported)}", line]


def loading_line(folder: str | Path, model: nn.Module) -> str:
    """`loading_lines` as one line."""
    return "; ".join(loading_lines(folder, model))


def usage_snippet(folder: str | Path, model: nn.Module, name: str | None = None) -> str:
    """Lines that load the model and make an image; of a model of pixels with classes, for which
    diffusers has no pipeline, with the loop of the sampler; of others without one, none.

    Args: of `loading_lines`.
    """
    family, where = family_of_model(model), _quoted(name or folder)
    if family.class_name == "UNet2DModel" and not _has_pipeline(folder, family, model):
        return _loop(folder, family, model, where)
    lines = loading_lines(folder, model, name)
    if (Path(folder) / INDEX).is_file():
        call = ", ".join([*_arguments(family, model), f"num_inference_steps={STEPS}"])
        image = [f"image = pipeline({call}).images[0]", 'image.save("sample.png")']
        return "\n".join([lines[0], "", lines[1], *image])
    return "\n".join([lines[0], "", lines[1]])


def _has_pipeline(folder: str | Path, family: Family, model: nn.Module) -> bool:
    """Of pixels: diffusers' own pipelines give no classes."""
    return (Path(folder) / INDEX).is_file() and family.num_classes(model.config) is None


def _load_model(family: Family, where: str) -> list[str]:
    line = f'model = {family.class_name}.from_pretrained({where}, subfolder="{family.component}")'
    return [f"from diffusers import {family.class_name}", line]


def _loop(folder: str | Path, family: Family, model: nn.Module, where: str) -> str:
    scheduler = _scheduler(folder)
    if scheduler not in OF_DDPM_PIPELINE:
        scheduler = "DDIMScheduler"
    loop = LOOP.format(
        steps=STEPS,
        channels=family.in_channels(model.config),
        size=family.sample_size(model.config),
        conditions=", torch.tensor([0])" if family.num_classes(model.config) else "",
    )
    load = f'scheduler = {scheduler}.from_pretrained({where}, subfolder="scheduler")'
    imports = ["import torch", f"from diffusers import {scheduler}, {family.class_name}", ""]
    return "\n".join([*imports, _load_model(family, where)[1], load, loop])


def _arguments(family: Family, model: nn.Module) -> list[str]:
    """Of a call of the pipeline."""
    if family.embeddings(model.config):
        arguments = ['"a photograph of a cat"']
        if family.class_name == "PixArtTransformer2DModel" and model.config.sample_size not in BINS:
            arguments.append("use_resolution_binning=False")
        return arguments
    classes = family.num_classes(model.config)
    if classes is None:
        return []
    # DiTPipeline's guidance knows no other number of classes.
    return ["class_labels=[0]"] + ([] if classes == 1000 else ["guidance_scale=1.0"])


def _scheduler(folder: str | Path) -> str | None:
    """The class of the scheduler in a folder, None without one."""
    path = Path(folder) / "scheduler" / "scheduler_config.json"
    if not path.is_file():
        return None
    return json.loads(path.read_text(encoding="utf-8")).get("_class_name", "DDPMScheduler")


def _quoted(name: str | Path) -> str:
    return json.dumps(name.as_posix() if isinstance(name, Path) else name, ensure_ascii=False)
