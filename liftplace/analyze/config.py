"""Settings of `liftplace analyze`; without model libraries, so that --help is fast."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import UseAppendAction

from liftplace.common.errors import UsageError
from liftplace.common.settings import at_least, check_types
from liftplace.data._checks import ResizeMode
from liftplace.data.config import crop_by_name
from liftplace.data.size import check_image_size

SMALLEST_SCORED = 8  # samples: an interval scores halves of them


@dataclass(frozen=True, kw_only=True)
class AnalyzeConfig:
    """Show where students differ from their teacher, before or after training, and what to do.

    Raises:
        UsageError: a value of the wrong type or out of range, with its name.
    """

    teacher: str = ""
    """Folder of the teacher, or its name on the Hugging Face Hub."""
    student: Annotated[tuple[str, ...], UseAppendAction] = ()
    """Folder of a student; give the flag once for each. Those of --config come first."""
    data: str = ""
    """digits, folder of images, folder that liftplace encode wrote, or a dataset of the Hub."""
    output_dir: str = ""
    """Folder of report.html: new, empty, or one to go on with."""

    dataset_config_name: str | None = None
    """Configuration of a dataset of the Hub."""
    image_column: str = "image"
    caption_column: str = "text"
    label_column: str = "label"
    """Columns of a dataset of the Hub, and caption's name in metadata.jsonl."""
    split: Literal["train", "test"] = "train"
    resolution: int | None = None
    """Height and width of the images; by default those that the model works at."""
    height: int | None = None
    width: int | None = None
    """Of images that are no squares, instead of --resolution."""
    resize_mode: ResizeMode | None = None
    """crop: the short side is resized and the middle of the long one kept, the default; squash: the
    whole image is scaled to a square."""
    center_crop: bool = False
    """--resize_mode crop, by its name in the diffusers scripts."""

    num_images: int = 64
    """Images whose errors are measured, drawn from the whole dataset; always the same."""
    num_timesteps: int = 20
    """Timesteps at which, each the middle of an equal share."""
    map_timesteps: int = 8
    """Columns of the error maps."""
    group_sizes: tuple[int, ...] = (4, 16, 64, 256)
    """Of PLACE; those larger than a row are left out."""
    scope: Literal["channel", "sample"] = "channel"
    """What one linear fit is for: a channel of an image, or a whole one."""
    batch_size: int | None = None
    """Images at a time, measured and sampled; by default as many as have the pixels of one of
    1024 x 1024, at most 32."""
    mixed_precision: Literal["no", "fp16", "bf16"] = "no"
    """Type of the models' weights; no is float32."""

    num_samples: int = 500
    """Samples of each model; 0 samples nothing."""
    num_inference_steps: int = 25
    """Of the samples, and of the sampler that carries errors into the image."""
    guidance_scale: float = 1.0
    """Classifier-free guidance; 1 is none."""
    prompts: tuple[str, ...] | None = None
    """Prompts of the samples, in turn; by default captions of --data."""
    class_labels: tuple[int, ...] | None = None
    """Classes of the samples, in turn; by default as frequent as in --data."""
    feature_network: str = "lite0"
    """lite0, inception, or module:attr of an nn.Module or of what returns one: images in [-1, 1]
    in, (N, features) out."""
    feature_weights: str | None = None
    """File of Inception's weights, as torch-fidelity releases them."""
    seed: int = 0

    def __post_init__(self) -> None:
        check_types(self)
        crop_by_name(self)
        check_image_size(self)
        at_least(1, self, "num_images", "num_timesteps", "map_timesteps")
        at_least(1, self, "batch_size", "num_inference_steps")
        at_least(0, self, "num_samples", "seed")
        if 0 < self.num_samples < SMALLEST_SCORED:
            raise UsageError(
                f"num_samples must be 0 or at least {SMALLEST_SCORED}, got {self.num_samples}"
            )
        if not self.group_sizes or min(self.group_sizes) < 2:
            raise UsageError(f"group_sizes must be at least 2 each, got {self.group_sizes}")
        object.__setattr__(self, "group_sizes", tuple(sorted(set(self.group_sizes))))

    def check_complete(self) -> None:
        """Raises UsageError if a setting without a default is missing."""
        if not self.teacher:
            raise UsageError("--teacher is missing: name the folder of the teacher")
        if not self.student:
            raise UsageError("--student is missing: name the folder of a student")
        if not self.data:
            raise UsageError("--data is missing: name a dataset, a folder of images, or digits")
        if not self.output_dir:
            raise UsageError("--output_dir is missing: name the folder of the report")
        if Path(self.output_dir).is_file():
            raise UsageError(f"--output_dir {self.output_dir} is a file: name a folder")
        paths = [str(Path(name).resolve()) for name in self.student]
        if len(set(paths)) < len(paths):
            raise UsageError(f"--student names one folder twice: {', '.join(self.student)}")
