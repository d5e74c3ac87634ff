"""`liftplace encode`: a dataset's latents and text embeddings on disk."""

from collections import defaultdict
from types import SimpleNamespace

import torch
from diffusers.configuration_utils import FrozenDict
from torch import Tensor
from tqdm.auto import tqdm

from liftplace.common.errors import UsageError
from liftplace.data import CachedLatents, open_dataset
from liftplace.data.cache import CacheWriter
from liftplace.data.config import EncodeConfig
from liftplace.data.encoder import LATENTS, Encoder
from liftplace.data.reading import read_batches, warn_of
from liftplace.data.size import image_size
from liftplace.families import family_of
from liftplace.models.hub import local_folder
from liftplace.models.loading import DTYPES, read_model_config


def encode(config: EncodeConfig) -> None:
    """Write the cache, or what is missing of it.

    Raises:
        UsageError: teacher, dataset and folder do not fit.
        OSError: a file could not be written.
    """
    config.check_complete()
    encoder = _encoder(config)
    dataset = open_dataset(
        config, encoder.resolution, labels=encoder.takes_labels, captions=encoder.takes_captions
    )
    if isinstance(dataset, CachedLatents):
        raise UsageError(f"--train_data_dir {config.train_data_dir} is a cache already")
    dtype = DTYPES[config.mixed_precision]
    encoder.to("cuda" if torch.cuda.is_available() else "cpu", dtype).check(dataset)
    writer = CacheWriter(
        config.output_dir,
        _record(config, encoder, dataset),
        teacher=config.pretrained_teacher_name_or_path,
    )
    if encoder.takes_captions:
        writer.write_null_text(_stored(encoder.null_text(), dtype))
    batches = _batches(writer.done, len(dataset), config)
    options = {"batch_sampler": batches, "num_workers": config.dataloader_num_workers}
    loader = read_batches(dataset, warn_of if config.on_bad_files == "skip" else None, **options)
    shard, held = defaultdict(list), 0
    with tqdm(total=len(dataset), initial=writer.done, desc="Encoding") as bar:
        for items in loader:
            for name, rows in _stored(_rows(encoder, items), dtype).items():
                shard[name].append(rows)
            held += len(items["images"])
            bar.update(len(items["images"]))
            if held == config.shard_size or writer.done + held == len(dataset):
                writer.write_shard({name: torch.cat(parts) for name, parts in shard.items()})
                shard, held = defaultdict(list), 0
    print(f"{config.output_dir}: {len(dataset)} images; give it as --train_data_dir")


def _encoder(config: EncodeConfig) -> Encoder:
    name = config.pretrained_teacher_name_or_path
    folder = local_folder(name, config.revision, config.variant)
    settings = read_model_config(folder)
    family = family_of(settings, folder)
    model = SimpleNamespace(config=FrozenDict(family.complete(settings)))  # needs no weights
    loaded = SimpleNamespace(
        family=family, model=model, pipeline=str(folder), variant=config.variant
    )
    encoder = Encoder(loaded, image_size(config))
    if encoder.vae is None:
        raise UsageError(f"{name} has no VAE: there is nothing to encode, train on the images")
    return encoder


def _record(config: EncodeConfig, encoder: Encoder, dataset) -> dict:
    """What a cache must agree in to be gone on with."""
    return {
        "fingerprint": encoder.fingerprint,
        "resolution": encoder.resolution,
        "latent_shape": list(encoder.shape),
        "images": len(dataset),
        "dataset": dataset.identity(),
        "classes": dataset.classes,
        **({"class_map": True} if getattr(dataset, "has_class_map", False) else {}),
        "resize_mode": config.resize_mode or "crop",
        "mixed_precision": config.mixed_precision,
        "shard_size": config.shard_size,
    }


def _batches(first: int, end: int, config: EncodeConfig) -> list[range]:
    """The batches from image `first` on; a new one begins with every shard."""
    batches = []
    while first < end:
        stop = min(
            first + config.batch_size, end, (first // config.shard_size + 1) * config.shard_size
        )
        batches.append(range(first, stop))
        first = stop
    return batches


def _rows(encoder: Encoder, items: dict) -> dict[str, Tensor]:
    """What is kept of a batch: not what follows from the resolution alone."""
    rows = dict(zip(LATENTS, encoder.posterior(items["images"]), strict=True))
    if encoder.takes_captions:
        rows |= encoder.text(items["captions"])
    if encoder.takes_labels:
        rows["class_labels"] = items["class_labels"]
    return rows


def _stored(rows: dict[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    return {name: x.to("cpu", dtype if x.is_floating_point() else None) for name, x in rows.items()}
