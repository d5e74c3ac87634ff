"""Models from folders and from the Hub, and whether two of them can be compared."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from liftplace.common.errors import UsageError
from liftplace.families import Family, family_of, family_of_model
from liftplace.families.family import Conditions, split_variance
from liftplace.models.config import TimestepSampling
from liftplace.models.hub import COMPONENTS, INDEX, local_folder
from liftplace.models.noise import STANDARD, NoiseProcess
from liftplace.models.saving import read_record
from liftplace.models.weights import variant_to_read, variants_in

DEFAULT_SCHEDULER = {"_class_name": "DDPMScheduler"}  # with diffusers' own defaults
DTYPES = {"no": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}  # mixed_precision


@dataclass(frozen=True)
class LoadedModel:
    """A model and what its folder says about its noise process."""

    model: nn.Module
    scheduler: dict | None  # scheduler_config.json; None where the folder has none
    folder: str
    variant: str | None = None  # of the weights, as it was asked for

    @property
    def family(self) -> Family:
        return family_of_model(self.model)

    @cached_property
    def pipeline(self) -> str:
        """The folder with its scheduler, VAE and text encoders: its own, or its teacher's for a
        student that stands alone, as older versions left them.

        Raises:
            UsageError: the teacher is not to be found.
        """
        record = {} if self.scheduler is not None else read_record(self.folder)
        teacher = record.get("teacher")
        if teacher is None:
            return self.folder
        try:
            return str(local_folder(teacher, record.get("teacher_commit")))
        except UsageError as error:
            raise UsageError(
                f"{self.folder} has no scheduler of its own, and its teacher {teacher} is not to "
                "be found from here: go where it is, or prune it again"
            ) from error

    @property
    def scheduler_config(self) -> dict | None:
        """Of the scheduler in its pipeline; None without one."""
        return self.scheduler or _scheduler_config(Path(self.pipeline))

    def process(self, timesteps: TimestepSampling = STANDARD) -> NoiseProcess:
        """The noise process it was trained with; says so where that has to be guessed."""
        config = self.scheduler_config
        if config is None:
            print(f"{self.folder} has no scheduler: taking DDPMScheduler with its defaults")
        return NoiseProcess(config or DEFAULT_SCHEDULER, timesteps)


def load_model(
    name_or_path: str | Path, revision: str | None = None, variant: str | None = None
) -> LoadedModel:
    """A model of any family from a pipeline's folder (unet/ or transformer/, scheduler/), from the
    folder of the model alone, or by its name on the Hugging Face Hub. Reads safetensors and JSON
    only.

    Args:
        revision: branch, tag or commit on the Hub.
        variant: of the weights, such as fp16; by default the plain ones, or the only one.

    Raises:
        UsageError: no such folder, a class of model without a family, or files that cannot be read.
    """
    folder = local_folder(name_or_path, revision, variant)
    if folder.name in COMPONENTS and (folder.parent / INDEX).is_file():
        folder = folder.parent
    place = _component_folder(folder)
    config = _read_json(place / "config.json")
    family = family_of(config, place)
    taken = _variant(place, variant)
    try:
        model, keys = family.model_class.from_pretrained(
            place,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
            variant=taken,
        )
    except (OSError, ValueError, TypeError, RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())
        raise UsageError(f"cannot load the model in {place}: {reason}") from error
    if keys["missing_keys"]:
        raise UsageError(
            f"{place} has a damaged model: no weights {', '.join(sorted(keys['missing_keys']))}"
        )
    try:
        unused = family.unused_weights(model.config)
    except (RuntimeError, TypeError, ValueError) as error:  # of a forward that asks for more
        reason = " ".join(str(error).split())
        raise UsageError(
            f"the {family.class_name} in {place} cannot be run as others of its class: {reason}"
        ) from error
    if unused:
        raise UsageError(
            f"the {family.class_name} in {place} takes an input that is not supported: without it, "
            f"its output does not depend on {unused[0]}"
        )
    return LoadedModel(model, _scheduler_config(folder), str(folder), variant)


def _variant(place: Path, asked: str | None) -> str | None:
    """The variant of the weights to load. Says so where it was not asked for."""
    names = [path.name for path in place.iterdir()]
    found = variants_in(names)
    if not found:
        raise UsageError(f"{place} has no weights: need diffusion_pytorch_model.safetensors")
    taken = variant_to_read(names, asked, place)
    if asked is not None and taken != asked:
        raise UsageError(
            f"--variant {asked}: {place} has no such weights, but "
            f"{', '.join(sorted(name or 'plain ones' for name in found))}"
        )
    if taken != asked:
        print(f"{place} has weights of the variant {taken} alone: taking them")
    return taken


def read_model_config(name_or_path: str | Path) -> dict:
    """The config of the model in a folder, in a config.json or on the Hub, without its weights."""
    path = Path(name_or_path)
    if not path.is_file():
        path = _component_folder(local_folder(name_or_path)) / "config.json"
    config = _read_json(path)
    family_of(config, path)
    return config


def predict(
    model: nn.Module, noisy: Tensor, timesteps: Tensor, conditions: Conditions | None = None
) -> Tensor:
    """What the model predicts, in the shape of `noisy`; without a variance that it may learn."""
    output = family_of_model(model).predict(model, noisy, timesteps, conditions or {})
    return split_variance(output, noisy.shape[1])[0]


def check_pair(student: LoadedModel, teacher: LoadedModel) -> None:
    """Raises UsageError if the student cannot be compared with the teacher output by output."""
    small, large = _interface(student), _interface(teacher)
    for name in large:
        if small[name] != large[name]:
            raise UsageError(
                f"student and teacher do not fit: {name} is {small[name]} in {student.folder} and "
                f"{large[name]} in {teacher.folder}"
            )
    if student.scheduler is not None:
        small = NoiseProcess(student.scheduler).prediction_type
        large = NoiseProcess(teacher.scheduler or DEFAULT_SCHEDULER).prediction_type
        if small != large:
            raise UsageError(
                f"student and teacher do not fit: {student.folder} predicts {small} and "
                f"{teacher.folder} predicts {large}"
            )


def _interface(loaded: LoadedModel) -> dict:
    """What a model takes and gives."""
    family, config = loaded.family, loaded.model.config
    return {
        "class": family.class_name,
        "in_channels": family.in_channels(config),
        "out_channels": family.out_channels(config),
        "sample_size": family.sample_size(config),
        "number of classes": family.num_classes(config),
        "shape of the text embeddings": family.embeddings(config),
        "conditions by size": sorted(family.size_conditions(config, 1, 8, 8)),
    }


def _component_folder(folder: Path) -> Path:
    parts = (folder / name for name in COMPONENTS if (folder / name).is_dir())
    return next(parts, folder)


def _scheduler_config(folder: Path) -> dict | None:
    for path in (folder / "scheduler" / "scheduler_config.json", folder / "scheduler_config.json"):
        if path.is_file():
            return _read_json(path)
    return None


def _read_json(path: Path) -> dict:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UsageError(f"{path.parent} holds no diffusers model: no {path.name}") from error
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read {path}: {error}") from error


def set_precision(model: nn.Module, device: torch.device, mixed_precision: str) -> nn.Module:
    """A model that is not trained, on `device` in the type of `mixed_precision`."""
    model = model.requires_grad_(False).eval().to(device)
    return model if mixed_precision == "no" else model.to(DTYPES[mixed_precision])
