"""Datasets of the Hugging Face Hub, and folders in their layout."""

import os
import warnings
from importlib.util import find_spec
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from liftplace.common.errors import UsageError
from liftplace.data._checks import check_resize_mode, check_split
from liftplace.data.folders import walk
from liftplace.data.pictures import UNREADABLE, UnreadableImageError, reason, to_tensor
from liftplace.data.size import Resolution, check_resolution

TABLES = frozenset({".parquet", ".arrow"})


def has_tables(folder: Path) -> bool:
    """Whether a folder holds a dataset as tables, as on the Hub."""
    return folder.is_dir() and any(
        os.path.splitext(name)[1] in TABLES for _, names in walk(folder) for name in names
    )


class HubImages(Dataset):
    """Images of a dataset that the package `datasets` loads, as RGB. Names of arguments as in the
    diffusers training scripts; items as `ImageFolder` gives them.

    Args:
        name: on the Hub, or a folder in its layout, or one that `save_to_disk` wrote. The only
            split is ``"train"``, whatever it is called.
        config_name: configuration of the dataset.
        resolution, split, resize_mode: as for `ImageFolder`.
        labels: give the classes in `label_column`: of type ClassLabel, integers or text.
        caption_column: column of the captions, None for none; of a list the first.

    Raises:
        UsageError: `datasets` is not installed, no such dataset, split or column, a column of
            another type.
    """

    channels = 3

    def __init__(
        self,
        name: str,
        *,
        resolution: Resolution,
        split: str = "train",
        resize_mode: str = "crop",
        labels: bool = False,
        config_name: str | None = None,
        image_column: str = "image",
        caption_column: str | None = None,
        label_column: str = "label",
    ) -> None:
        check_resolution(resolution)
        check_split(split)
        check_resize_mode(resize_mode)
        self.name = name
        self.resolution = resolution
        self.resize_mode = resize_mode
        self.image_column = image_column
        self.caption_column = caption_column
        self.label_column = label_column if labels else None
        self._table = _load(name, config_name, split)
        self._fingerprint = self._table._fingerprint  # of what was loaded
        self._find_columns()
        for flag in ("image_column", "caption_column", "label_column"):
            self._check_column(flag)
        self.has_captions = caption_column is not None
        self.classes = None
        if labels:
            self.classes = self._class_names()

    def __len__(self) -> int:
        return len(self._table)

    def __getitem__(self, index: int) -> dict[str, Tensor | str]:
        try:
            row = self._table[int(index)]
            image = self._image(row)
        except UNREADABLE as error:
            raise UnreadableImageError(
                f"cannot read row {index} of {self.name}: {reason(error)}"
            ) from error
        return {"images": image} | self._conditions(row, index)

    def captions(self) -> list[str]:
        """Of all images; empty without captions."""
        if self.caption_column is None:
            return []
        rows = enumerate(self._table.select_columns([self.caption_column]))
        return [self._caption(row, index) for index, row in rows]

    def conditions(self, index: int) -> dict[str, Tensor | str]:
        """The item without its image, which is not read."""
        columns = [name for name in (self.label_column, self.caption_column) if name is not None]
        if not columns:
            return {}
        return self._conditions(self._table.select_columns(columns)[int(index)], index)

    def _conditions(self, row: dict, index: int) -> dict[str, Tensor | str]:
        item = {}
        if self.label_column is not None:
            item["class_labels"] = torch.tensor(row[self.label_column])
        if self.caption_column is not None:
            item["captions"] = self._caption(row, index)
        return item

    def identity(self) -> str:
        """Text that changes with the images, labels and captions."""
        columns = (self.image_column, self.caption_column, self.label_column)
        info = self._table.info
        if is_saved(Path(self.name)):
            return f"{self.name} {self._fingerprint} {len(self)} {columns}"
        return f"{self.name} {info.config_name} {info.version} {info.dataset_size} {columns}"

    def _image(self, row: dict) -> Tensor:
        image = row[self.image_column]
        if not isinstance(image, Image.Image):
            raise ValueError(
                f"--image_column {self.image_column} holds {type(image).__name__}, no image"
            )
        return to_tensor(image, self.resolution, self.resize_mode)

    def _caption(self, row: dict, index: int) -> str:
        caption = row[self.caption_column]
        if isinstance(caption, list) and caption:
            caption = caption[0]
        if not isinstance(caption, str):
            raise UsageError(
                f"{self.name}, row {index}: --caption_column {self.caption_column} holds "
                f"{caption!r}, no text"
            )
        return caption

    def _find_columns(self) -> None:
        """Common other names of the columns, where those by default are not there; images that are
        kept as bytes."""
        import datasets

        features = self._table.features
        images = [name for name, each in features.items() if isinstance(each, datasets.Image)]
        if self.image_column == "image" and "image" not in features and len(images) == 1:
            (self.image_column,) = images
        if self.caption_column == "text" and "text" not in features and "caption" in features:
            self.caption_column = "caption"
        feature = features.get(self.image_column)
        if isinstance(feature, dict) and feature.keys() == {"bytes", "path"}:
            self._table = self._table.cast_column(self.image_column, datasets.Image())

    def _check_column(self, flag: str) -> None:
        column = getattr(self, flag)
        if column is not None and column not in self._table.column_names:
            raise UsageError(
                f"{self.name} has no column {column}: give --{flag}, one of "
                f"{', '.join(self._table.column_names)}"
            )

    def _class_names(self) -> tuple[str, ...]:
        column = self.label_column
        if getattr(self._table.features[column], "dtype", None) == "string":
            self._table = self._table.class_encode_column(column)
        feature = self._table.features[column]
        if not str(getattr(feature, "dtype", None)).startswith(("int", "uint")):
            raise UsageError(f"{self.name}: --label_column {column} holds no classes: {feature}")
        labels = self._table.unique(column)
        if None in labels or min(labels) < 0:
            raise UsageError(f"{self.name}: --label_column {column} has rows without a class")
        return tuple(getattr(feature, "names", None) or map(str, range(max(labels) + 1)))


def is_saved(folder: Path) -> bool:
    """Whether the method save_to_disk of a dataset wrote a folder."""
    return (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file()


def _of_split(name: str, saved, split: str):
    """The split of a saved dataset or of several by name; without splits all is "train"."""
    by_name = saved if isinstance(saved, dict) else {str(saved.split or "train"): saved}
    if split in by_name:
        return by_name[split]
    if split == "train" and len(by_name) == 1:
        return by_name[_only(name, list(by_name))]
    raise UsageError(f"{name} has no split {split}: it has {', '.join(by_name)}")


def _only(name: str, splits: list[str]) -> str:
    if splits != ["train"]:
        warnings.warn(f"{name} has only the split {splits[0]}: that is read", stacklevel=2)
    return splits[0]


def _load(name: str, config_name: str | None, split: str):
    if find_spec("datasets") is None:
        raise UsageError(
            f"{name} needs the package datasets, which is not installed: "
            'pip install "liftplace[hub]"'
        )
    import datasets

    try:
        if is_saved(Path(name)):
            return _of_split(name, datasets.load_from_disk(name), split)
        try:
            return datasets.load_dataset(name, config_name, split=split)
        except ValueError:
            only = datasets.get_dataset_split_names(name, config_name)
            if split != "train" or len(only) != 1:
                raise
            return datasets.load_dataset(name, config_name, split=_only(name, only))
    except UsageError:
        raise
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        reason = " ".join(str(error).split())
        raise UsageError(
            f"no folder {name}, and no such dataset was loaded from the Hugging Face Hub: {reason}"
        ) from error
