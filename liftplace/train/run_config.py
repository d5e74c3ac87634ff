"""What every training run has: the settings that liftplace train and distil share.

One small dataclass a concern, put together by inheritance: flags, YAML files and run.json are flat.
A function asks for the smallest that it needs. Importing this imports no model library.
"""

import os
from dataclasses import dataclass
from typing import ClassVar, Literal

from liftplace.common.errors import UsageError
from liftplace.common.settings import (
    MayChange,
    Settings,
    at_least,
    between,
    positive,
    split_names,
)
from liftplace.data.config import BatchConfig
from liftplace.models.config import TimestepSampling

EVALUATION_METRICS = ("fd", "kid", "is", "precision", "recall")
FEWEST_SAMPLES = 8  # of an evaluation: nearest neighbours, and variances
Scheduler = Literal[
    "linear", "cosine", "cosine_with_restarts", "polynomial", "constant", "constant_with_warmup"
]


@dataclass(frozen=True, kw_only=True)
class DeviceConfig(Settings):
    """How the models are computed."""

    mixed_precision: Literal["no", "fp16", "bf16"] | None = None
    """By default what accelerate launch or ACCELERATE_MIXED_PRECISION says, no without them."""
    gradient_checkpointing: MayChange[bool] = False
    """Compute activations twice instead of keeping them."""
    compile: MayChange[bool] = False
    """Let torch.compile make the models faster."""
    cuda_graphs: MayChange[bool] = False
    """Record forward, loss and backward once and launch them whole, for models so small that the
    GPU waits for Python; on one GPU."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.mixed_precision is None:
            object.__setattr__(self, "mixed_precision", _precision_of_accelerate())
        if self.cuda_graphs and self.mixed_precision == "fp16":
            raise UsageError(
                "cuda_graphs does not go with mixed_precision fp16: leave one of them out"
            )
        if self.cuda_graphs and self.gradient_checkpointing:
            raise UsageError(
                "cuda_graphs does not go with gradient_checkpointing: leave one of them out"
            )


def _precision_of_accelerate() -> str:
    """What `accelerate launch` passes on of its flags and its config file."""
    name = os.environ.get("ACCELERATE_MIXED_PRECISION", "no").lower()
    if name not in ("no", "fp16", "bf16"):
        raise UsageError(
            f"mixed_precision {name}, as accelerate has it, is not supported: give no, fp16 or bf16"
        )
    return name


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig(Settings):
    """AdamW and its learning rate schedule."""

    use_8bit_adam: bool = False
    """AdamW of bitsandbytes, with its state in 8 bits."""
    learning_rate: float = 1e-4
    lr_scheduler: Scheduler = "cosine"
    lr_warmup_steps: int | None = None
    """Steps until --learning_rate is reached; by default 500, or a tenth of a run of fewer than
    5,000 steps."""
    lr_min: float = 0.0
    """Learning rate that the schedule falls to."""
    adam_beta1: float = 0.95
    adam_beta2: float = 0.999
    adam_weight_decay: float = 1e-6
    adam_epsilon: float = 1e-8
    max_grad_norm: float = 1.0
    """Gradients are scaled down to this norm; 0 leaves them as they are."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(0, self, "lr_warmup_steps", "max_grad_norm", "adam_weight_decay", "lr_min")
        between(0, 1, self, "adam_beta1", "adam_beta2")
        positive(self, "learning_rate", "adam_epsilon")

    def warmup_steps(self, max_train_steps: int) -> int:
        """Steps until the learning rate is reached, in a run of so many."""
        if self.lr_scheduler == "constant":
            return 0
        if self.lr_warmup_steps is None:
            return min(500, max_train_steps // 10)
        return self.lr_warmup_steps


@dataclass(frozen=True, kw_only=True)
class EmaConfig(Settings):
    """The exponential moving average of the weights."""

    use_ema: bool = False
    """Keep, sample from and save the exponential moving average of the weights."""
    ema_inv_gamma: float = 1.0
    ema_power: float = 0.75
    ema_max_decay: float = 0.9999
    ema_min_decay: float = 0.0
    """Least decay; equal to --ema_max_decay it is constant."""

    def __post_init__(self) -> None:
        super().__post_init__()
        between(0, 1, self, "ema_max_decay", "ema_min_decay")
        positive(self, "ema_inv_gamma", "ema_power")


@dataclass(frozen=True, kw_only=True)
class CheckpointConfig(Settings):
    """When checkpoints are written, which are kept, and which one the run starts from."""

    checkpointing_steps: MayChange[int] = 500
    """Steps between checkpoints; 0 for none but on Ctrl-C."""
    checkpoints_total_limit: MayChange[int | None] = None
    """Keep this many of the newest checkpoints; by default all."""
    resume_from_checkpoint: MayChange[str | None] = None
    """latest, or a folder checkpoint-N of this run."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(0, self, "checkpointing_steps")
        at_least(1, self, "checkpoints_total_limit")


@dataclass(frozen=True, kw_only=True)
class LoggingConfig(Settings):
    """What is written down while the run goes on."""

    logging_steps: MayChange[int] = 10
    """Steps between lines of metrics.jsonl; a line waits for the device."""
    gradient_share_steps: MayChange[int] = 100
    """Steps between looks at what each term adds to the gradient, on the first images of a step,
    with one more forward and backward pass a term; 0 for none."""
    report_to: MayChange[Literal["tensorboard", "none"]] = "tensorboard"
    logging_dir: MayChange[str] = "logs"
    """Folder of the TensorBoard files, inside output_dir."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(0, self, "gradient_share_steps")
        at_least(1, self, "logging_steps")


@dataclass(frozen=True, kw_only=True)
class ValidationConfig(Settings):
    """Pictures of samples while the run goes on."""

    validation_steps: MayChange[int] = 0
    """Steps between pictures of samples; 0 for none."""
    num_validation_images: MayChange[int] = 16
    num_inference_steps: MayChange[int] = 25
    """Denoising steps of those samples."""
    validation_prompts: MayChange[tuple[str, ...] | None] = None
    """Captions of those samples, in turn; for models that take text."""
    guidance_scale: MayChange[float] = 1.0
    """Classifier-free guidance of those samples; 1 is none."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(0, self, "validation_steps")
        at_least(1, self, "num_validation_images", "num_inference_steps")


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig(ValidationConfig):
    """Scores of samples while the run goes on, and the best model by one of them."""

    evaluation_steps: MayChange[int] = 0
    """Steps between scores of samples, made as those of the pictures; 0 for none."""
    evaluation_metrics: MayChange[tuple[str, ...] | str] = ("fd", "kid")
    """fd, kid, is, precision, recall: with commas or spaces between them."""
    reference_dir: MayChange[str | None] = None
    """Folder of real images, or digits, for the scores; by default the images of the training."""
    num_evaluation_samples: MayChange[int] = 500
    """Samples, and as many real images."""
    feature_network: MayChange[str] = "lite0"
    """lite0, inception, or module:attr, as liftplace evaluate takes them."""
    feature_weights: MayChange[str | None] = None
    """File of Inception's weights."""
    metric_for_best_model: MayChange[str | None] = None
    """One of --evaluation_metrics: the model that is best by it is kept in the folder best."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(0, self, "evaluation_steps")
        at_least(FEWEST_SAMPLES, self, "num_evaluation_samples")
        metrics = split_names(self.evaluation_metrics)
        object.__setattr__(self, "evaluation_metrics", metrics)
        if not metrics or not set(metrics) <= set(EVALUATION_METRICS):
            raise UsageError(
                f"evaluation_metrics must be of {', '.join(EVALUATION_METRICS)}, got {metrics}"
            )
        best = self.metric_for_best_model
        if best is not None and best not in metrics:
            raise UsageError(
                f"metric_for_best_model must be one of --evaluation_metrics, {', '.join(metrics)}, "
                f"got {best!r}"
            )
        if best is not None and self.evaluation_steps == 0:
            raise UsageError(
                f"metric_for_best_model {best} needs --evaluation_steps: give a number"
            )


@dataclass(frozen=True, kw_only=True)
class HubConfig(Settings):
    """The result on the Hugging Face Hub."""

    push_to_hub: MayChange[bool] = False
    """Upload the result to the Hugging Face Hub; log in with hf auth login."""
    hub_model_id: MayChange[str | None] = None
    """Repository there; by default the name of --output_dir."""


# Fields come from the last base to the first: --help begins with the images.
@dataclass(frozen=True, kw_only=True)
class RunConfig(
    HubConfig,
    EvaluationConfig,
    LoggingConfig,
    CheckpointConfig,
    EmaConfig,
    OptimizerConfig,
    DeviceConfig,
    TimestepSampling,
    BatchConfig,
):
    """What every training run has. Names are those of the diffusers training scripts.

    Raises:
        UsageError: a value of the wrong type or out of range, with its name.
    """

    has_presets: ClassVar[bool] = False
    """Whether the YAML files of liftplace/configs have settings of this class."""

    output_dir: MayChange[str] = ""
    """Folder of the run: new or empty, or that of the run to resume."""
    dry_run: MayChange[bool] = False
    """Print sizes, memory, batch, steps, learning rate, time and disk of the run, after a few steps
    that measure it, and stop before it starts."""

    def check_complete(self) -> None:
        """Raises UsageError if what has no default was not given."""
        if not self.output_dir:
            raise UsageError("--output_dir is missing: name the folder of the run")
        self.check_data()
