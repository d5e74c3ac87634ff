"""The tokenizers and text encoders of a pipeline."""

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline
from safetensors import SafetensorError

from liftplace.common.errors import UsageError
from liftplace.models.weights import variant_to_read

# What loading a part of a pipeline raises that is missing, damaged or of another class.
UNREADABLE = (OSError, ValueError, TypeError, RuntimeError, KeyError, SafetensorError)


def load_text(folder: Path, variant: str | None = None) -> DiffusionPipeline:
    """The pipeline of a folder, of whose parts only tokenizers and text encoders are there.

    Args:
        variant: of the weights, where there are some; by default plain ones, or the only variant.
    """
    if find_spec("transformers") is None:
        raise UsageError(
            "captions need the package transformers, which is not installed: "
            'pip install "liftplace[text]"'
        )
    index = pipeline_index(folder)
    parts = {name: value for name, value in index.items() if isinstance(value, list)}
    needed = {name for name, value in parts.items() if is_of_text(name) and value[0] is not None}
    if not any(map(_is_text_encoder, needed)):
        raise UsageError(
            f"{folder} has no text encoder: the model of a {index.get('_class_name')} is told "
            "something else than captions, which is not supported"
        )
    for name in needed:  # for want of its files a tokenizer would be an empty one
        if not (folder / name).is_dir():
            raise UsageError(f"{folder} has no {name}: captions need the whole pipeline")
    variants = {
        variant_to_read((path.name for path in (folder / name).iterdir()), variant, folder / name)
        for name in filter(_is_text_encoder, needed)
    }
    left_out: dict[str, Any] = {name: None for name in parts.keys() - needed}
    if "requires_safety_checker" in index:
        left_out["requires_safety_checker"] = False  # or it warns of images that nobody makes
    try:
        pipeline = DiffusionPipeline.from_pretrained(
            folder,
            use_safetensors=True,
            local_files_only=True,
            variant=next(iter(variants - {None}), None),  # where a part has it
            **left_out,
        )
    except UNREADABLE as error:
        raise UsageError(f"cannot load the text encoders in {folder}: {one_line(error)}") from error
    for name in filter(_is_text_encoder, needed):
        getattr(pipeline, name).requires_grad_(False).eval()
    return pipeline


def move_text_encoders(pipeline, device: torch.device, dtype: torch.dtype) -> None:
    for name, part in pipeline.components.items():
        if not _is_text_encoder(name) or part is None:
            continue
        part.to(device, dtype)
        # The layers of T5 that overflow in float16.
        kept = getattr(part, "_keep_in_fp32_modules", None) or ()
        for path, module in part.named_modules():
            if dtype == torch.float16 and path.rsplit(".")[-1] in kept:
                module.float()


def pipeline_index(folder: Path) -> dict:
    path = folder / "model_index.json"
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UsageError(
            f"{folder} has no {path.name}: captions need the folder of a whole pipeline, with its "
            "text encoders"
        ) from error
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read {path}: {error}") from error


def _is_text_encoder(name: str) -> bool:
    return name.startswith("text_encoder")


def is_of_text(name: str) -> bool:
    return name.startswith(("text_encoder", "tokenizer"))


def one_line(error: Exception) -> str:
    return " ".join(str(error).split())
