"""Settings of `liftplace evaluate`; without model libraries, so that --help is fast."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from liftplace.common.errors import UsageError
from liftplace.common.settings import at_least, between, check_types, split_names
from liftplace.data._checks import ResizeMode
from liftplace.data.config import crop_by_name
from liftplace.data.size import check_image_size

METRICS = ("fd", "fid", "kid", "is", "precision", "recall", "agreement", "clip")
AGAINST_REAL = ("kid", "is", "precision", "recall")  # need the features of real images


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """Score the samples of a saved model.

    Raises:
        UsageError: a value of the wrong type or out of range, with its name.
    """

    model: str = ""
    """Folder of the model, or its name on the Hugging Face Hub."""
    reference_dir: str = ""
    """Folder of real images, or digits; twice as many as --num_samples give the floor too."""
    reference_stats: str | None = None
    """Instead of --reference_dir: a file of --save_reference_stats, or an .npz with mu and sigma of
    the real images' features, as pytorch-fid writes it (fd alone)."""
    save_reference_stats: str | None = None
    """New .safetensors file for the features of the real images, to be --reference_stats later."""
    split: Literal["train", "test"] = "train"
    """Which of the real images."""
    output_dir: str = ""
    """Folder of results.json: new, empty, or one to go on with."""
    teacher: str | None = None
    """Folder of the teacher, for the metric agreement."""
    metrics: tuple[str, ...] | str = ("fd", "kid", "precision", "recall")
    """fd, kid, is, precision, recall, agreement, clip: with commas or spaces between them; fid is
    fd with --feature_network inception."""
    num_samples: int = 1000
    num_inference_steps: int = 25
    """Of DDIM, in flow matching of Euler, spaced and clipped as the model's scheduler says."""
    seed: int = 0
    batch_size: int | None = None
    """Images that are made at a time, which do not depend on it; by default as many as have the
    pixels of one of 1024 x 1024, at most 64."""
    mixed_precision: Literal["no", "fp16", "bf16"] = "no"
    """Type of the weights that make samples; scores are made in float32 and float64."""
    dataloader_num_workers: int = 0
    """Processes that read real images ahead."""
    resolution: int | None = None
    """Height and width of the images; by default those that the model works at."""
    height: int | None = None
    width: int | None = None
    """Of images that are no squares, instead of --resolution."""
    resize_mode: ResizeMode | None = None
    """Of real images. crop: the short side is resized and the middle of the long one kept, the
    default; squash: the whole is scaled to a square."""
    center_crop: bool = False
    """--resize_mode crop, by its name in the diffusers scripts."""
    class_labels: tuple[int, ...] | None = None
    """Classes of the samples, in turn; by default those of the real images, or all in turn where
    these have none."""
    class_map: str | None = None
    """JSON file with the number of each subfolder of --reference_dir, like {"cat": 281}."""
    prompts: tuple[str, ...] | None = None
    """Prompts of the samples, in turn; by default the captions of the real images."""
    guidance_scale: float = 1.0
    """Classifier-free guidance; 1 is none."""
    feature_network: str = "lite0"
    """lite0, inception, or module:attr of an nn.Module or of what returns
    one: images in [-1, 1] in, (N, features) out."""
    feature_weights: str | None = None
    """File of Inception's weights, as torch-fidelity releases them; downloaded by default."""
    clip_model: str = "openai/clip-vit-base-patch16"
    """Folder of a CLIPModel, or its name on the Hugging Face Hub, for the metric clip."""
    neighbours: int = 3
    """k of precision and recall."""
    interval_draws: int = 100
    """Random halves that a confidence interval comes from."""
    confidence: float = 0.95

    def __post_init__(self) -> None:
        check_types(self)
        crop_by_name(self)
        object.__setattr__(self, "metrics", split_names(self.metrics))
        unknown = [name for name in self.metrics if name not in METRICS]
        if unknown or not self.metrics:
            raise UsageError(f"metrics must be of {', '.join(METRICS)}, got {self.metrics}")
        if "fid" in self.metrics and self.feature_network != "inception":
            raise UsageError("metrics fid needs --feature_network inception; fd is of any network")
        metrics = ("fd" if name == "fid" else name for name in self.metrics)
        object.__setattr__(self, "metrics", split_names(tuple(metrics)))
        at_least(1, self, "num_inference_steps", "batch_size", "neighbours")
        check_image_size(self)
        at_least(0, self, "seed", "dataloader_num_workers")
        at_least(2, self, "interval_draws")
        between(0.01, 0.999, self, "confidence")
        if self.num_samples < self.fewest_samples:
            raise UsageError(
                f"num_samples must be at least {self.fewest_samples}, for intervals over halves "
                f"with neighbours {self.neighbours}, got {self.num_samples}"
            )

    @property
    def fewest_samples(self) -> int:
        """Of which a random half still has a variance and as many neighbours."""
        neighbours = self.neighbours if {"precision", "recall"} & set(self.metrics) else 0
        return max(4, 2 * neighbours + 2)

    def check_complete(self) -> None:
        """Raises UsageError if a setting without a default is missing."""
        if not self.model:
            raise UsageError("--model is missing: name the folder of a model")
        if not (self.reference_dir or self.reference_stats):
            raise UsageError("--reference_dir is missing: name a folder of real images, or digits")
        if self.reference_dir and self.reference_stats:
            raise UsageError("--reference_dir and --reference_stats are both given: leave one out")
        self._check_stats()
        if not self.output_dir:
            raise UsageError("--output_dir is missing: name the folder of the results")
        if Path(self.output_dir).is_file():
            raise UsageError(f"--output_dir {self.output_dir} is a file: name a folder")
        if ("agreement" in self.metrics) != (self.teacher is not None):
            raise UsageError("--metrics agreement and --teacher go together: give both or neither")

    def _check_stats(self) -> None:
        file, new = self.reference_stats, self.save_reference_stats
        if file is not None and not file.endswith((".npz", ".safetensors")):
            raise UsageError(f"--reference_stats {file} must end in .npz or .safetensors")
        refused = [name for name in self.metrics if name in AGAINST_REAL]
        if file is not None and file.endswith(".npz") and refused:
            raise UsageError(
                f"--reference_stats {file} has moments only, and --metrics {','.join(refused)} "
                "need features: give --reference_dir, or fd alone"
            )
        if new is None:
            return
        if file is not None:
            raise UsageError("--save_reference_stats is of --reference_dir: leave one out")
        if not new.endswith(".safetensors"):
            raise UsageError(f"--save_reference_stats {new} must end in .safetensors")
        if Path(new).exists():
            raise UsageError(
                f"--save_reference_stats {new} exists: give it as --reference_stats, or name a new "
                "file"
            )
