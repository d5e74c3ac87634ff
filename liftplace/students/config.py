"""Settings of `liftplace prune`. Importing them imports no model library."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from liftplace.common.errors import UsageError
from liftplace.common.settings import at_least
from liftplace.data.config import DataConfig
from liftplace.models.config import TeacherConfig
from liftplace.students.width import check_width


@dataclass(frozen=True, kw_only=True)
class PruneConfig(TeacherConfig, DataConfig):
    """Make a small student of a teacher, with the teacher's weights."""

    output_dir: str = ""
    """Folder of the student: new or empty."""

    width: float | None = None
    """Share of every stage's channels, or of the heads, that stays: more than 0, at most 1."""
    norm_num_groups: int | None = None
    """Norm groups of a student by --width; by default as many as leave each norm four channels a
    group, or the two or three that the teacher's have."""
    student_config: str | None = None
    """Instead of --width: a JSON file of what the student's config.json has other than the
    teacher's, such as channels, heads, norm groups, dropout."""
    drop_blocks: Literal["bk-base", "bk-small", "bk-tiny"] | None = None
    """Leave out blocks of a Stable Diffusion U-Net as BK-SDM does."""
    keep_layers: tuple[int, ...] | str | None = None
    """Blocks of a transformer that stay, like 0,2,4, counted from 0 through all of its lists."""
    depth: int | None = None
    """How many blocks of a transformer stay, instead of --keep_layers; its lists share them in
    proportion."""
    layer_selection: Literal["even", "importance"] = "even"
    """Which those are: spread evenly, or the ones whose absence changes the output most, on the
    dataset or without one on noise."""
    importance: Literal["magnitude", "taylor"] = "magnitude"
    """Which channels stay: those of the largest weights, or those whose absence would change the
    loss on the dataset most."""
    random_init: bool = False
    """New random weights instead of the teacher's."""
    seed: int = 0
    """Of the random weights, and of the noise on the images."""

    train_batch_size: int = 8
    """Images a batch, by which channels or layers are measured."""
    num_batches: int = 8
    """How many of those batches."""

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "keep_layers", _numbers(self.keep_layers))
        at_least(0, self, "seed")
        at_least(1, self, "norm_num_groups", "depth", "train_batch_size", "num_batches")
        if self.width is not None:
            check_width(self.width)

    @property
    def is_narrow(self) -> bool:
        return self.width is not None or self.student_config is not None

    @property
    def has_data(self) -> bool:
        return self.dataset_name is not None or self.train_data_dir is not None

    def check_complete(self) -> None:
        """Raises UsageError if what has no default was not given, or things do not go together."""
        self.check_teacher()
        if not self.output_dir:
            raise UsageError("--output_dir is missing: name the folder of the student")
        folder = Path(self.output_dir)
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise UsageError(f"--output_dir {folder} exists: name a new folder")
        kinds = (self.width, self.student_config, self.drop_blocks, self.keep_layers, self.depth)
        if all(kind is None for kind in kinds):
            raise UsageError(
                "nothing to prune: give --width, --student_config, --drop_blocks, --keep_layers or "
                "--depth"
            )
        if self.width is not None and self.student_config is not None:
            raise UsageError("give --width or --student_config, not both")
        if self.norm_num_groups is not None and self.width is None:
            raise UsageError("--norm_num_groups goes with --width: give both")
        if self.keep_layers is not None and self.depth is not None:
            raise UsageError("give --keep_layers or --depth, not both")
        if self.dataset_name is not None and self.train_data_dir is not None:
            raise UsageError("give --dataset_name or --train_data_dir, not both")
        if self.layer_selection == "importance" and self.depth is None:
            raise UsageError("--layer_selection importance chooses layers: give --depth")
        if self.importance == "taylor" and (not self.is_narrow or self.random_init):
            raise UsageError(
                "--importance taylor chooses channels: give --width or --student_config, without "
                "--random_init"
            )
        if self.importance == "taylor" and not self.has_data:
            raise UsageError(
                "--importance taylor needs images: give --train_data_dir or --dataset_name"
            )


def _numbers(layers: tuple[int, ...] | str | None) -> tuple[int, ...] | None:
    """0,2,4 as numbers."""
    if not isinstance(layers, str):
        return layers
    try:
        return tuple(int(number) for number in layers.split(","))
    except ValueError as error:
        raise UsageError(f"keep_layers must be numbers like 0,2,4, got {layers!r}") from error
