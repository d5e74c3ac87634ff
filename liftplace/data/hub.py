"""Datasets of the Hugging Face Hub, and folders in their layout."""

from importlib.util import find_spec
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from liftplace.common.errors import UsageError
from liftplace.data._checks import check_resolution, check_split
from liftplace.data.pictures import to_tensor

TABLES = frozenset({".parquet", ".arrow"})


def has_tables(folder: Path) -> bool:
    """Whether a folder holds a dataset as tables, as on the Hub."""
    return folder.is_dir() and any(path.suffix in TABLES for path in folder.rglob("*"))


class HubImages(Dataset):
    """Images of a dataset that the package `datasets` loads, as RGB. Names of arguments as in the
    diffusers training scripts; items as `ImageFolder` gives them.

    Args:
        name: on the Hub, or a folder in its layout.
        config_name: configuration of the dataset.
        resolution, split, center_crop: as for `ImageFolder`.
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
        resolution: int,
        split: str = "train",
        center_crop: bool = False,
        labels: bool = False,
        config_name: str | None = None,
        image_column: str = "image",
        caption_column: str | None = None,
        label_column: str = "label",
    ) -> None:
        check_resolution(resolution)
        check_split(split)
        self.name = name
        self.resolution = resolution
        self.center_crop = center_crop
        self.image_column = image_column
        self.caption_column = caption_column
        self.label_column = label_column if labels else None
        self._table = _load(name, config_name, split)
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
        except (OSError, SyntaxError, ValueError) as error:  # what PIL's decoders raise
            raise UsageError(f"cannot read row {index} of {self.name}: {error}") from error
        return {"images": self._image(row, index)} | self._conditions(row, index)

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
        return f"{self.name} {info.config_name} {info.version} {info.dataset_size} {columns}"

    def _image(self, row: dict, index: int) -> Tensor:
        image = row[self.image_column]
        if not isinstance(image, Image.Image):
            raise UsageError(
                f"{self.name}, row {index}: --image_column {self.image_column} holds "
                f"{type(image).__name__}, no image"
            )
        return to_tensor(image, self.resolution, self.center_crop)

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


def _load(name: str, config_name: str | None, split: str):
    if find_spec("datasets") is None:
        raise UsageError(
            f"{name} needs the package datasets, which is not installed: "
            'pip install "liftplace[hub]"'
        )
    import datasets

    try:
        return datasets.load_dataset(name, config_name, split=split)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        reason = " ".join(str(error).split())
        raise UsageError(
            f"no folder {name}, and no such dataset was loaded from the Hugging Face Hub: {reason}"
        ) from error
