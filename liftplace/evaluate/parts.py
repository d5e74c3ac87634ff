"""Samples in parts on disk, so that an evaluation that was stopped goes on."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn
from tqdm.auto import tqdm

from liftplace.common.distributed import distributed_state, main_process_decides
from liftplace.common.errors import UsageError
from liftplace.common.files import write_text_whole, write_whole
from liftplace.evaluate.features import extract_features
from liftplace.evaluate.sampling import Sampler

# Samples a part. The noise of a part comes from its number, so this is no setting. Eight processes
# have one part each of 1,000 samples.
PART_SIZE = 128
RECORD = "samples.json"


class Part(NamedTuple):
    """Some of the samples of a model."""

    number: int
    seed: int  # of the noise that they start from
    first: int  # number of the first sample
    count: int  # samples


def parts_of(num_samples: int, seed: int) -> list[Part]:
    """The parts that make `num_samples` samples together."""
    firsts = range(0, num_samples, PART_SIZE)
    return [
        Part(number, seed_of_part(seed, number), first, min(PART_SIZE, num_samples - first))
        for number, first in enumerate(firsts)
    ]


def seed_of_part(seed: int, number: int) -> int:
    """32 bits that differ by part and by seed; numpy promises the same ones in every version."""
    return int(np.random.SeedSequence([seed, number]).generate_state(1)[0])


def sample_part(
    sampler: Sampler, model: nn.Module, network: nn.Module, part: Part, **options
) -> tuple[Tensor, Tensor]:
    """A part of a model's samples: images (count, channels, height, width), and their features
    (count, features).

    Args:
        sampler, model: on one device.
        network: of the features.
        part: which samples.
        options: of `Sampler.sample`.
    """
    images = sampler.sample(
        model,
        num_samples=part.count,
        first=part.first,
        seed=part.seed,
        description=None,
        **options,
    )
    return images, extract_features(images, network, description=None)


def collect(
    folder: Path,
    record: dict,
    num_samples: int,
    sample: Callable[[Part], dict[str, Tensor]],
    name: str = "samples",
) -> dict[str, Tensor]:
    """What `sample` gives for all parts, joined by name. Parts that are in the folder already are
    read and not sampled again.

    Several processes share the parts that are missing, and all of them get everything.

    Args:
        folder: of the parts, which all processes see.
        record: everything that the parts depend on, as JSON has it.
        num_samples: of all parts together.
        sample: gives tensors by name for a part: with a row for each sample, or one for the part.
        name: of the folder that the parts have in `folder`.

    Raises:
        UsageError: the folder holds something else, or samples with another record.
        OSError: a file could not be written.
    """
    state = distributed_state()
    parts = parts_of(num_samples, record["seed"])
    files = [folder / name / f"{part.number:05}.safetensors" for part in parts]
    missing = main_process_decides(state, partial(_missing, folder, record, files))
    mine = missing[state.process_index :: state.num_processes]
    done = num_samples - sum(parts[number].count for number in missing)
    with tqdm(
        total=done + sum(parts[number].count for number in mine),
        initial=done,
        desc="Sampling" if state.num_processes == 1 else "Sampling (this process's share)",
        disable=not state.is_main_process,
    ) as bar:
        for number in mine:
            write_whole(files[number], save(sample(parts[number])), shared=True)
            bar.update(parts[number].count)
    state.wait_for_everyone()
    saved = [_read(file) for file in files]
    if any(part is None for part in saved):
        raise UsageError(f"--output_dir {folder} must be one folder that all processes see")
    return {name: torch.cat([part[name] for part in saved]) for name in saved[0]}


def _missing(folder: Path, record: dict, files: list[Path]) -> list[int]:
    """The numbers of the parts that must be sampled."""
    claim(folder, record | {"samples_per_file": PART_SIZE})
    return [number for number, file in enumerate(files) if _read(file) is None]


def claim(folder: Path, record: dict) -> None:
    """Writes the record into a new or empty folder, or checks that the folder has this one.

    Raises:
        UsageError: it holds something else, or has another record.
    """
    file = folder / RECORD
    if not file.is_file():
        if folder.is_dir() and any(folder.iterdir()):
            raise UsageError(
                f"--output_dir {folder} is not empty and holds no evaluation: name a new folder"
            )
        write_text_whole(file, json.dumps(record, indent=2) + "\n")
        return
    saved, new = json.loads(file.read_text()), json.loads(json.dumps(record))
    for name in new | saved:
        if new.get(name) != saved.get(name):
            raise UsageError(
                f"--output_dir {folder} holds other samples: {name} is {saved.get(name)} there "
                f"and {new.get(name)} here; name a new folder"
            )


def _read(file: Path) -> dict[str, Tensor] | None:
    try:
        return load_file(file) if file.is_file() else None
    except SafetensorError:  # damaged: it is sampled again
        return None
