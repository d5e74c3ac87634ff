"""The seam to the models: load one, call one, save one. The rest of the trainer sees tensors.

Only UNet2DModel for now; another family is another branch of `load_model` and `predict`.
"""

import json
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import DDPMPipeline, UNet2DModel
from huggingface_hub import snapshot_download
from safetensors import SafetensorError
from torch import Tensor, nn

from liftplace.errors import UsageError
from liftplace.train.process import STANDARD, NoiseProcess, Timesteps

SUPPORTED = {"UNet2DModel": UNet2DModel}
DEFAULT_SCHEDULER = {"_class_name": "DDPMScheduler"}  # with diffusers' own defaults


@dataclass(frozen=True)
class LoadedModel:
    """A model and what its folder says about its noise process."""

    model: nn.Module
    scheduler: dict | None  # scheduler_config.json; None where the folder has none
    folder: str

    def process(self, timesteps: Timesteps = STANDARD) -> NoiseProcess:
        """The noise process it was trained with; says so where that has to be guessed."""
        if self.scheduler is None:
            print(f"{self.folder} has no scheduler: taking DDPMScheduler with its defaults")
        return NoiseProcess(self.scheduler or DEFAULT_SCHEDULER, timesteps)


def load_model(name_or_path: str | Path) -> LoadedModel:
    """A UNet2DModel from a pipeline's folder (unet/, scheduler/), from the folder of the model
    alone, or by its name on the Hugging Face Hub. Reads safetensors and JSON only.

    Raises:
        UsageError: no such folder, another class of model, or files that cannot be read.
    """
    folder = _local_folder(name_or_path)
    unet = folder / "unet" if (folder / "unet").is_dir() else folder
    config = _read_json(unet / "config.json")
    check_supported(config, unet)
    if not any(unet.glob("*.safetensors")):
        raise UsageError(f"{unet} has no weights: need diffusion_pytorch_model.safetensors")
    try:
        model, keys = UNet2DModel.from_pretrained(
            unet, use_safetensors=True, local_files_only=True, output_loading_info=True
        )
    except (OSError, ValueError, TypeError, RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())
        raise UsageError(f"cannot load the model in {unet}: {reason}") from error
    if keys["missing_keys"]:
        raise UsageError(
            f"{unet} has a damaged model: no weights {', '.join(sorted(keys['missing_keys']))}"
        )
    return LoadedModel(model, _scheduler_config(folder), str(folder))


def read_model_config(name_or_path: str | Path) -> dict:
    """The config of the model in a folder, in a config.json or on the Hub, without its weights."""
    path = Path(name_or_path)
    if not path.is_file():
        folder = _local_folder(name_or_path)
        path = (folder / "unet" if (folder / "unet").is_dir() else folder) / "config.json"
    config = _read_json(path)
    check_supported(config, path)
    return config


def predict(model: nn.Module, noisy: Tensor, timesteps: Tensor) -> Tensor:
    """The model's output, in the shape of `noisy`."""
    return model(noisy, timesteps, return_dict=False)[0]


def save_pipeline(model: nn.Module, process: NoiseProcess, folder: str | Path) -> None:
    """Writes a folder that `DDPMPipeline.from_pretrained` loads. What it replaces stays in place
    until the new files are complete."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / ".saving"
    shutil.rmtree(partial, ignore_errors=True)
    DDPMPipeline(unet=model, scheduler=process.scheduler).save_pretrained(partial)
    for new in sorted(partial.iterdir(), key=lambda path: path.is_file()):  # the index last
        old = folder / new.name
        if old.is_dir():
            shutil.rmtree(old)
        os.replace(new, old)
    partial.rmdir()


def check_pair(student: LoadedModel, teacher: LoadedModel) -> None:
    """Raises UsageError if the student cannot be compared with the teacher output by output."""
    for name in ("in_channels", "out_channels", "sample_size"):
        theirs, ours = getattr(teacher.model.config, name), getattr(student.model.config, name)
        if theirs != ours:
            raise UsageError(
                f"student and teacher do not fit: {name} is {ours} in {student.folder} and "
                f"{theirs} in {teacher.folder}"
            )
    if student.scheduler is not None:
        ours = NoiseProcess(student.scheduler).prediction_type
        theirs = NoiseProcess(teacher.scheduler or DEFAULT_SCHEDULER).prediction_type
        if ours != theirs:
            raise UsageError(
                f"student and teacher do not fit: {student.folder} predicts {ours} and "
                f"{teacher.folder} predicts {theirs}"
            )


def check_images(config, channels: int, resolution: int, folder: str) -> None:
    """Raises UsageError if a model with this config does not take such images."""
    if config.in_channels != channels:
        raise UsageError(
            f"the images have {channels} channels, but {folder} takes {config.in_channels}"
        )
    if config.sample_size != resolution:
        raise UsageError(
            f"--resolution is {resolution}, but {folder} works at {config.sample_size}"
        )


def check_supported(config: dict, path: Path) -> None:
    """Raises UsageError if the toolkit cannot train a model with this config."""
    name = config.get("_class_name")
    if name not in SUPPORTED:
        raise UsageError(
            f"{path} is a {name or 'model of unknown class'}, which is not supported: "
            f"need a {' or '.join(SUPPORTED)}"
        )
    ours, theirs = config.get("out_channels", 3), config.get("in_channels", 3)
    if ours != theirs:
        raise UsageError(
            f"{path} has out_channels {ours} and in_channels {theirs}: models that also predict a "
            "variance are not supported"
        )
    if type(config.get("sample_size")) is not int:
        raise UsageError(
            f"{path} has sample_size {config.get('sample_size')}: need one number, the height and "
            "width of its images"
        )
    if config.get("num_class_embeds") or config.get("class_embed_type"):
        raise UsageError(f"{path} is conditioned on classes, which is not supported")


def _local_folder(name_or_path: str | Path) -> Path:
    path = Path(name_or_path)
    if path.is_dir():
        return path
    if not re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", str(name_or_path)):
        raise UsageError(f"no folder {name_or_path}: give the folder of a diffusers model")
    try:
        patterns = ["*.json", "*.safetensors"]
        return Path(snapshot_download(str(name_or_path), allow_patterns=patterns))
    except (OSError, ValueError) as error:  # the Hub's own errors are OSErrors
        raise UsageError(
            f"no folder {name_or_path}, and no such model could be had from the Hugging Face Hub"
        ) from error


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
    if mixed_precision == "no":
        return model
    return model.to({"fp16": torch.float16, "bf16": torch.bfloat16}[mixed_precision])
