"""Settings of `liftplace evaluate`; apart, so that flags wait for no model library."""

import re
from dataclasses import dataclass
from pathlib import Path

from liftplace.errors import UsageError
from liftplace.settings import at_least, between, check_types

METRICS = ("fd", "kid", "is", "precision", "recall", "agreement")


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
    output_dir: str = ""
    """Folder of results.json: new, empty, or one to go on with."""
    teacher: str | None = None
    """Folder of the teacher, for the metric agreement."""
    metrics: tuple[str, ...] | str = ("fd", "kid", "precision", "recall")
    """fd, kid, is, precision, recall, agreement: with commas or spaces between them."""
    num_samples: int = 1000
    num_inference_steps: int = 25
    seed: int = 0
    batch_size: int = 64
    """Images that are made at a time."""
    resolution: int | None = None
    """Height and width of the images; by default those that the model works at."""
    center_crop: bool = False
    """Cut the central square out of real images, instead of scaling the whole to a square."""
    class_labels: tuple[int, ...] | None = None
    """Classes of the samples, in turn; by default all of the model's."""
    prompts: tuple[str, ...] | None = None
    """Captions of the samples, in turn; for models that take text."""
    guidance_scale: float = 1.0
    """Classifier-free guidance; 1 is none."""
    feature_network: str = "lite0"
    """lite0, inception (with --feature_weights), or module:attr of an nn.Module or of what returns
    one: images in [-1, 1] in, (N, features) out."""
    feature_weights: str | None = None
    """File of Inception's weights, as torch-fidelity releases them."""
    neighbours: int = 3
    """k of precision and recall."""
    interval_draws: int = 100
    """Random halves that a confidence interval comes from."""
    confidence: float = 0.95

    def __post_init__(self) -> None:
        check_types(self)
        object.__setattr__(self, "metrics", _names(self.metrics))
        unknown = [name for name in self.metrics if name not in METRICS]
        if unknown or not self.metrics:
            raise UsageError(f"metrics must be of {', '.join(METRICS)}, got {self.metrics}")
        at_least(1, self, "num_inference_steps", "batch_size", "resolution", "neighbours")
        at_least(0, self, "seed")
        at_least(2, self, "interval_draws")
        between(0.01, 0.999, self, "confidence")
        # Half of the samples must still have as many neighbours.
        at_least(max(4, 2 * self.neighbours + 2), self, "num_samples")

    def check_complete(self) -> None:
        """Raises UsageError if what has no default was not given."""
        if not self.model:
            raise UsageError("--model is missing: name the folder of a model")
        if not self.reference_dir:
            raise UsageError("--reference_dir is missing: name a folder of real images, or digits")
        if not self.output_dir:
            raise UsageError("--output_dir is missing: name the folder of the results")
        if Path(self.output_dir).is_file():
            raise UsageError(f"--output_dir {self.output_dir} is a file: name a folder")
        if ("agreement" in self.metrics) != (self.teacher is not None):
            raise UsageError("--metrics agreement and --teacher go together: give both or neither")


def _names(metrics: tuple[str, ...] | str) -> tuple[str, ...]:
    text = metrics if isinstance(metrics, str) else " ".join(metrics)
    return tuple(dict.fromkeys(name for name in re.split(r"[,\s]+", text) if name))
