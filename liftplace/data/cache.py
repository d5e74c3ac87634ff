"""Latents and conditions on disk: safetensors shards beside an index with their hashes.

A shard is renamed into its place when it is whole and enters the index after that, so that a writer
killed at any time goes on behind the last shard of the index.
"""

import hashlib
import json
from bisect import bisect_right
from collections.abc import Mapping
from itertools import accumulate
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils.data import Dataset
from tqdm.auto import tqdm

from liftplace.common.errors import UsageError
from liftplace.common.files import partial_of, whole_file, write_text_whole
from liftplace.common.settings import of_today
from liftplace.data.size import height_width

INDEX = "liftplace_cache.json"
NULL_TEXT = "null_text.safetensors"
FORMAT = 1
AGAIN = "make it again with liftplace encode"


def is_cache(folder: Path) -> bool:
    return (folder / INDEX).is_file()


class CachedLatents(Dataset):
    """What `liftplace encode` wrote, as a map-style dataset.

    An item has `latent_mean` and `latent_std` (channels, height, width) of the VAE's posterior,
    scaled as the model takes them, and the conditions by name, in the type that they were computed
    in. Files are read when they are needed.

    Args:
        folder: of the cache.

    Raises:
        UsageError: the cache is unfinished, or a file of it is missing or changed.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.index = _read_index(self.folder)
        self.record = self.index["record"]
        sizes = [shard["images"] for shard in self.index["shards"]]
        if sum(sizes) != self.record["images"]:
            raise UsageError(
                f"{self.folder} is unfinished, {sum(sizes)} of {self.record['images']} images: run "
                "the same liftplace encode again, it goes on"
            )
        self._ends = list(accumulate(sizes))
        self._verify()
        self.channels = self.record["latent_shape"][0]
        self.classes = None if self.record["classes"] is None else tuple(self.record["classes"])
        self.resize_mode = of_today(self.record)["resize_mode"]
        self.has_class_map = self.record.get("class_map", False)
        self.has_captions = self.record["fingerprint"]["text"] is not None
        self.null_text = load_file(self.folder / NULL_TEXT) if self.has_captions else None
        self._open = {}

    def __len__(self) -> int:
        return self.record["images"]

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        index = range(len(self))[index]
        number = bisect_right(self._ends, index)
        if number not in self._open:
            path = self.folder / self.index["shards"][number]["file"]
            self._open[number] = safe_open(path, framework="pt")
        shard = self._open[number]
        row = index - (self._ends[number - 1] if number else 0)
        return {name: shard.get_slice(name)[row] for name in shard.keys()}  # noqa: SIM118

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_open": {}}  # open files stay in their process

    def check(self, encoder) -> None:
        """Raises UsageError if this is not what `encoder` would make."""
        fingerprint, made_by = encoder.fingerprint, self.index["teacher"]
        words = {"vae": "another VAE", "text": "other text encoders"}
        for part, other in words.items():
            if fingerprint[part] not in (None, self.record["fingerprint"][part]):
                raise UsageError(
                    f"{self.folder} was made by {made_by}, with {other} than {encoder.folder} has: "
                    f"{AGAIN}"
                )
        if fingerprint["vae"] is None:
            raise UsageError(f"{self.folder} holds latents, but {encoder.folder} takes pixels")
        if height_width(self.record["resolution"]) != height_width(encoder.resolution):
            raise UsageError(
                f"{self.folder} was made at --resolution {self.record['resolution']}, not "
                f"{encoder.resolution}: {AGAIN}"
            )

    def _verify(self) -> None:
        shards = self.index["shards"] + [file for file in [self.index["null_text"]] if file]
        for shard in tqdm(shards, desc="Verifying the cache", leave=False):
            path = self.folder / shard["file"]
            if not path.is_file():
                raise UsageError(f"{path} is missing: {AGAIN}, in a new folder")
            if _sha256(path) != shard["sha256"]:
                raise UsageError(f"{path} is not as it was written: {AGAIN}, in a new folder")


class CacheWriter:
    """Writes a cache, or goes on with one that was left unfinished.

    Args:
        folder: new, empty, or with the same record.
        record: what the cache is made of, as JSON: `fingerprint`, `resolution`, `latent_shape`,
            `images` (their number), `classes`, `resize_mode`, and whatever else
            a cache must agree in to be gone on with.
        teacher: whose encoders make it; for messages.

    Raises:
        UsageError: the folder holds something else.
    """

    def __init__(self, folder: str | Path, record: Mapping[str, Any], *, teacher: str) -> None:
        self.folder = Path(folder)
        self.index = {"format": FORMAT, "teacher": teacher, "record": dict(record)}
        self.index |= {"null_text": None, "shards": []}
        if is_cache(self.folder):
            self._go_on()
            return
        if self.folder.exists() and not _is_free(self.folder):
            raise UsageError(f"--output_dir {folder} is not empty and no cache: name a new folder")
        self.folder.mkdir(parents=True, exist_ok=True)
        self._save_index()  # first of all files, so that the folder is known again

    @property
    def done(self) -> int:
        """Images in the shards so far."""
        return sum(shard["images"] for shard in self.index["shards"])

    def write_null_text(self, embeddings: Mapping[str, Tensor]) -> None:
        """The embeddings (1, ...) of the empty caption."""
        if self.index["null_text"] is None:
            self.index["null_text"] = self._save(NULL_TEXT, embeddings)
            self._save_index()

    def write_shard(self, rows: Mapping[str, Tensor]) -> None:
        """The next images: `latent_mean`, `latent_std` and conditions, (images, ...) each."""
        name = f"shard-{len(self.index['shards']):05}.safetensors"
        entry = self._save(name, rows)
        self.index["shards"].append(entry | {"images": len(rows["latent_mean"])})
        self._save_index()

    def _go_on(self) -> None:
        before = _read_index(self.folder)
        new = json.loads(json.dumps(self.index["record"]))
        old = of_today(before["record"])
        for name in sorted(new.keys() | old.keys()):
            if new.get(name) != old.get(name):
                raise UsageError(
                    f"--output_dir {self.folder} holds another cache: its {name} is "
                    f"{_short(old.get(name))}, not {_short(new.get(name))}: name a new folder"
                )
        self.index = before

    def _save(self, name: str, tensors: Mapping[str, Tensor]) -> dict:
        with whole_file(self.folder / name) as partial:
            save_file({key: value.contiguous() for key, value in tensors.items()}, partial)
            digest = _sha256(partial)
        return {"file": name, "sha256": digest}

    def _save_index(self) -> None:
        write_text_whole(self.folder / INDEX, json.dumps(self.index, indent=1) + "\n")


def _is_free(folder: Path) -> bool:
    """Empty, but for what a writer left that was killed before its first file was whole."""
    return folder.is_dir() and all(path == partial_of(folder / INDEX) for path in folder.iterdir())


def _read_index(folder: Path) -> dict:
    path = folder / INDEX
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
        known = index["format"] == FORMAT
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"cannot read {path}: {AGAIN}, in a new folder") from error
    if not known:
        raise UsageError(f"{path} is of another version of liftplace: {AGAIN}, in a new folder")
    return index


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
