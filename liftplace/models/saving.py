"""The folder of a model that diffusers loads, and what liftplace keeps beside it."""

import json
import shutil
from pathlib import Path

from diffusers import DDPMPipeline
from torch import nn

from liftplace.common.errors import UsageError
from liftplace.common.files import updated_folder
from liftplace.families import family_of_model
from liftplace.models.hub import INDEX, SAFETY_CHECKER, pipeline_parts
from liftplace.models.noise import NoiseProcess
from liftplace.models.weights import (
    PLAIN,
    plain_name,
    variant_of,
    variant_to_read,
    variants_in,
)

RECORD = "liftplace_config.json"
SCHEDULER = "scheduler_config.json"
OTHER_FORMATS = (".bin", ".msgpack", ".h5", ".onnx", ".onnx_data", ".pb", ".xml", ".ckpt")


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
            _copy_parts(Path(base_pipeline), partial, model)
            model.save_pretrained(partial / family.component)
        elif family.class_name == "UNet2DModel" and family.num_classes(model.config) is None:
            DDPMPipeline(unet=model, scheduler=process.scheduler).save_pretrained(partial)
        else:
            model.save_pretrained(partial / family.component)
            process.scheduler.save_pretrained(partial / "scheduler")


def _copy_parts(source: Path, target: Path, model: nn.Module) -> None:
    """A pipeline's folder without the part that is replaced, and without what is none of it."""
    component = family_of_model(model).component
    for file, new in copied_files(source, component):
        (target / new).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target / new)
    index = read_index(source)
    if SAFETY_CHECKER in index and not (target / SAFETY_CHECKER).is_dir():
        # Deleted, or not fetched: then the teacher does without one too.
        index |= {SAFETY_CHECKER: [None, None], "requires_safety_checker": False}
    index[component] = [type(model).__module__.split(".")[0], type(model).__name__]
    (target / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def copied_files(source: Path, component: str) -> list[tuple[Path, str]]:
    """The files of a pipeline beside its model that denoises, and the names of their copies.

    Weights are those that are read without a variant; where there are none, the only variant under
    their names, so that the copy loads without one. A scheduler beside the model has a folder then.
    """
    copied = []
    for part in pipeline_parts(read_index(source)):
        if part == component:
            continue
        if (source / part).is_dir():
            copied += _files_of_part(source / part)
        elif part == "scheduler" and (source / SCHEDULER).is_file():
            copied.append((source / SCHEDULER, f"scheduler/{SCHEDULER}"))
    return copied


def _files_of_part(folder: Path) -> list[tuple[Path, str]]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    here = [path.name for path in files if path.parent == folder]
    found = variants_in(here)
    if found and (PLAIN in found or len(found) == 1):
        taken = variant_to_read(here, None, folder) or PLAIN
        files = [path for path in files if not _is_other_weight(path, taken)]
    return [
        (path, (path.relative_to(folder.parent).with_name(plain_name(path.name))).as_posix())
        for path in files
    ]


def _is_other_weight(path: Path, taken: str) -> bool:
    """Whether it holds the weights once more: another variant of them, or another format."""
    variant = variant_of(path.name)
    return path.suffix in OTHER_FORMATS if variant is None else variant != taken


def read_index(folder: Path) -> dict:
    """The model_index.json of a pipeline."""
    return json.loads((folder / INDEX).read_text(encoding="utf-8"))


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
