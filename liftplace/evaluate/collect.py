"""What is kept of samples, in parts on disk, so that an evaluation that was stopped goes on."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor
from tqdm.auto import tqdm

from liftplace.errors import UsageError
from liftplace.evaluate.features import write_whole

PART = 256  # samples a file; a part's noise comes from its number, so this is no setting
RECORD = "samples.json"

Draw = Callable[[int, int, int], dict[str, Tensor]]


def collect(folder: Path, record: dict, num_samples: int, draw: Draw) -> dict[str, Tensor]:
    """What `draw` gives for all samples, by name; parts that are in the folder are not drawn again.

    Args:
        folder: of the parts.
        record: of everything that the parts depend on, as JSON has it.
        num_samples: of all parts together.
        draw: from a part's seed, its first sample and its number of samples to tensors, one row
            each.

    Raises:
        UsageError: the folder holds something else, or samples with another record.
        OSError: a file could not be written.
    """
    _claim(folder, record)
    parts = []
    with tqdm(total=num_samples, desc="Sampling") as bar:
        for number, first in enumerate(range(0, num_samples, PART)):
            count = min(PART, num_samples - first)
            file = folder / "samples" / f"{number:05}.safetensors"
            part = _read(file)
            if part is None:
                part = draw(seed_of_part(record["seed"], number), first, count)
                write_whole(file, save(part))
            parts.append(part)
            bar.update(count)
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def seed_of_part(seed: int, number: int) -> int:
    """32 bits that differ by part and by seed; numpy promises the same ones in every version."""
    return int(np.random.SeedSequence([seed, number]).generate_state(1)[0])


def _claim(folder: Path, record: dict) -> None:
    file = folder / RECORD
    if not file.is_file():
        if folder.is_dir() and any(folder.iterdir()):
            raise UsageError(
                f"--output_dir {folder} is not empty and holds no evaluation: name a new folder"
            )
        write_whole(file, json.dumps(record, indent=2).encode() + b"\n")
        return
    theirs, ours = json.loads(file.read_text()), json.loads(json.dumps(record))
    for name in ours | theirs:
        if ours.get(name) != theirs.get(name):
            raise UsageError(
                f"--output_dir {folder} holds other samples: {name} is {theirs.get(name)} there "
                f"and {ours.get(name)} here; name a new folder"
            )


def _read(file: Path) -> dict[str, Tensor] | None:
    try:
        return load_file(file) if file.is_file() else None
    except SafetensorError:  # damaged: it is drawn anew
        return None
