"""The folder of a model that diffusers loads, and what liftplace keeps beside it."""

import json
import shutil
from pathlib import Path

from diffusers import DDPMPipeline
from torch import nn

from liftplace.common.errors import UsageError
from liftplace.common.files import updated_folder
from liftplace.families import family_of_model
from liftplace.models.noise import NoiseProcess

INDEX = "model_index.json"
RECORD = "liftplace_config.json"


def save_pipeline(
    model: nn.Module,
    process: NoiseProcess,
    folder: str | Path,
    base_pipeline: str | Path | None = None,
) -> None:
    """Write a folder that a stock diffusers pipeline loads.

    What it replaces stays in place until the new files are complete.

    Args:
        model: of any family.
        process: whose scheduler is saved where `base_pipeline` has none.
        folder: may hold other files, which are left alone.
        base_pipeline: folder of a pipeline, whose other parts (VAE, text encoders, scheduler) are
            copied. Without one, an unconditional UNet2DModel becomes a DDPMPipeline, and any other
            model stands beside its scheduler, without an index.
    """
    family = family_of_model(model)
    with updated_folder(Path(folder)) as partial:  # its files, the index among them, go last
        if base_pipeline is not None and (Path(base_pipeline) / INDEX).is_file():
            _copy_parts(Path(base_pipeline), partial, family.component)
            model.save_pretrained(partial / family.component)
        elif family.class_name == "UNet2DModel" and family.num_classes(model.config) is None:
            DDPMPipeline(unet=model, scheduler=process.scheduler).save_pretrained(partial)
        else:
            model.save_pretrained(partial / family.component)
            process.scheduler.save_pretrained(partial / "scheduler")


def _copy_parts(source: Path, target: Path, component: str) -> None:
    """A pipeline's folder without the part that is replaced, and without what is none of it."""
    index = json.loads((source / INDEX).read_text(encoding="utf-8"))
    for name in index:
        if name != component and (source / name).is_dir():
            shutil.copytree(source / name, target / name)
    shutil.copyfile(source / INDEX, target / INDEX)


def read_record(folder: str | Path) -> dict:
    """liftplace_config.json of a student's folder; empty where there is none.

    Raises:
        UsageError: it cannot be read.
    """
    path = Path(folder) / RECORD
    if not path.is_file():
        return {}
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read {path}: {error}") from error
