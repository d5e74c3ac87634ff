"""What is kept of samples, in parts on disk, so that an evaluation that was stopped goes on."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor
from tqdm.auto import tqdm

from liftplace.common.distributed import distributed_state, main_process_decides
from liftplace.common.errors import UsageError
from liftplace.evaluate.features import write_whole

# Samples a file; a part's noise comes from its number, so this is no setting. Eight processes have
# one each of 1,000 samples.
PART = 128
RECORD = "samples.json"

Draw = Callable[[int, int, int], dict[str, Tensor]]


def collect(
    folder: Path, record: dict, num_samples: int, draw: Draw, name: str = "samples"
) -> dict[str, Tensor]:
    """What `draw` gives for all samples, by name; parts that are in the folder are not drawn again.

    Several processes share out the parts that are missing, and all get all of them.

    Args:
        folder: of the parts, which all processes see.
        record: of everything that the parts depend on, as JSON has it.
        num_samples: of all parts together.
        draw: from a part's seed, its first sample and its number of samples to tensors, one row
            each, or one of the part.
        name: of the folder that the parts have in it.

    Raises:
        UsageError: the folder holds something else, or samples with another record.
        OSError: a file could not be written.
    """
    state = distributed_state()
    firsts = range(0, num_samples, PART)
    files = [folder / name / f"{number:05}.safetensors" for number in range(len(firsts))]
    missing = main_process_decides(state, partial(_missing, folder, record, files))
    ours = missing[state.process_index :: state.num_processes]
    counts = [min(PART, num_samples - first) for first in firsts]
    with tqdm(
        total=num_samples - sum(counts[number] for number in missing if number not in ours),
        initial=num_samples - sum(counts[number] for number in missing),
        desc="Sampling" if state.num_processes == 1 else "Sampling (this process's share)",
        disable=not state.is_main_process,
    ) as bar:
        for number in ours:
            seed = seed_of_part(record["seed"], number)
            write_whole(files[number], save(draw(seed, firsts[number], counts[number])))
            bar.update(counts[number])
    state.wait_for_everyone()
    parts = [_read(file) for file in files]
    if any(part is None for part in parts):
        raise UsageError(f"--output_dir {folder} must be one folder that all processes see")
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def seed_of_part(seed: int, number: int) -> int:
    """32 bits that differ by part and by seed; numpy promises the same ones in every version."""
    return int(np.random.SeedSequence([seed, number]).generate_state(1)[0])


def _missing(folder: Path, record: dict, files: list[Path]) -> list[int]:
    """The numbers of the parts that are to be drawn, of a folder that is ours."""
    claim(folder, record | {"samples_per_file": PART})
    return [number for number, file in enumerate(files) if _read(file) is None]


def claim(folder: Path, record: dict) -> None:
    """Makes a new or empty folder that of this record.

    Raises:
        UsageError: it holds something else, or what has another record.
    """
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
