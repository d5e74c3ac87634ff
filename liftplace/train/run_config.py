"""What every training run has: the settings that liftplace train and distil share."""

import os
from dataclasses import dataclass
from typing import ClassVar, Literal

from liftplace.common.errors import UsageError
from liftplace.common.settings import at_least, between, split_names
from liftplace.data.config import BatchConfig

EVALUATION_METRICS = ("fd", "kid", "is", "precision", "recall")

# Only these may differ between a run and its resumption: they do not change what is learnt, or,
# like max_train_steps, the user asks for the change in so many words. How a batch is split may
# change with the number of processes; its size, which the record of the run has, may not.
MAY_CHANGE_ON_RESUME = frozenset({
    "checkpointing_steps", "checkpoints_total_limit", "compile", "cuda_graphs",
    "dataloader_num_workers", "dataset_on_device", "dry_run", "evaluation_metrics",
    "evaluation_steps", "feature_network", "feature_weights", "gradient_accumulation_steps",
    "gradient_checkpointing", "gradient_share_steps", "guidance_scale", "hub_model_id",
    "logging_dir", "logging_steps", "max_train_steps", "metric_for_best_model",
    "num_evaluation_samples", "num_inference_steps", "num_validation_images", "output_dir",
    "push_to_hub", "reference_dir", "report_to", "resume_from_checkpoint", "train_batch_size",
    "validation_prompts", "validation_steps",
})  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class RunConfig(BatchConfig):
    """What every training run has. Names are those of the diffusers training scripts.

    Raises:
        UsageError: a value of the wrong type or out of range, with its name.
    """

    has_presets: ClassVar[bool] = False
    """Whether the YAML files of `liftplace.train.presets` have settings of this class."""

    output_dir: str = ""
    """Folder of the run: new or empty, or that of the run to resume."""

    mixed_precision: Literal["no", "fp16", "bf16"] | None = None
    """By default what accelerate launch or ACCELERATE_MIXED_PRECISION says, no without them."""

    snr_gamma: float | None = None
    """Min-SNR weighting of the task loss, 5 is usual; for diffusion processes."""
    weighting_scheme: Literal["none", "sigma_sqrt", "logit_normal", "mode", "cosmap"] | None = None
    """Density of the timesteps, or weighting of the task loss, of flow matching; logit_normal
    unless given."""
    logit_mean: float = 0.0
    logit_std: float = 1.0
    """Of logit_normal."""
    mode_scale: float = 1.29
    """Of mode."""
    antithetic_timesteps: bool = False
    """Draw half of a batch's timesteps and mirror them."""

    gradient_checkpointing: bool = False
    """Compute activations twice instead of keeping them."""
    compile: bool = False
    """Let torch.compile make the models faster."""
    cuda_graphs: bool = False
    """Record forward, loss and backward once and launch them whole, for models so small that the
    GPU waits for Python; on one GPU."""
    use_8bit_adam: bool = False
    """AdamW of bitsandbytes, with its state in 8 bits."""
    dry_run: bool = False
    """Print sizes, memory, batch, steps and disk of the run, and stop before it starts."""

    learning_rate: float = 1e-4
    lr_scheduler: Literal[
        "linear", "cosine", "cosine_with_restarts", "polynomial", "constant", "constant_with_warmup"
    ] = "cosine"
    lr_warmup_steps: int = 500
    lr_min: float = 0.0
    """Learning rate that the schedule falls to."""
    adam_beta1: float = 0.95
    adam_beta2: float = 0.999
    adam_weight_decay: float = 1e-6
    adam_epsilon: float = 1e-8
    max_grad_norm: float = 1.0
    """Gradients are scaled down to this norm; 0 leaves them as they are."""

    use_ema: bool = False
    """Keep, sample from and save the exponential moving average of the weights."""
    ema_inv_gamma: float = 1.0
    ema_power: float = 0.75
    ema_max_decay: float = 0.9999
    ema_min_decay: float = 0.0
    """Least decay; equal to --ema_max_decay it is constant."""

    checkpointing_steps: int = 500
    """Steps between checkpoints; 0 for none but on Ctrl-C."""
    checkpoints_total_limit: int | None = None
    """Keep this many of the newest checkpoints; by default all."""
    resume_from_checkpoint: str | None = None
    """latest, or a folder checkpoint-N of this run."""
    logging_steps: int = 10
    """Steps between lines of metrics.jsonl; a line waits for the device."""
    gradient_share_steps: int = 100
    """Steps between looks at what each term adds to the gradient, on the first images of a step,
    with one more forward and backward pass a term; 0 for none."""
    report_to: Literal["tensorboard", "none"] = "tensorboard"
    logging_dir: str = "logs"
    """Folder of the TensorBoard files, inside output_dir."""
    validation_steps: int = 0
    """Steps between pictures of samples; 0 for none."""
    num_validation_images: int = 16
    num_inference_steps: int = 25
    """Denoising steps of those samples."""
    validation_prompts: tuple[str, ...] | None = None
    """Captions of those samples, in turn; for models that take text."""
    guidance_scale: float = 1.0
    """Classifier-free guidance of those samples; 1 is none."""

    evaluation_steps: int = 0
    """Steps between scores of samples, made as those of the pictures; 0 for none."""
    evaluation_metrics: tuple[str, ...] | str = ("fd", "kid")
    """fd, kid, is, precision, recall: with commas or spaces between them."""
    reference_dir: str | None = None
    """Folder of real images, or digits, for the scores; by default the images of the training."""
    num_evaluation_samples: int = 500
    """Samples, and as many real images."""
    feature_network: str = "lite0"
    """lite0, inception, or module:attr, as liftplace evaluate takes them."""
    feature_weights: str | None = None
    """File of Inception's weights."""
    metric_for_best_model: str | None = None
    """One of --evaluation_metrics: the model that is best by it is kept in the folder best."""

    push_to_hub: bool = False
    """Upload the result to the Hugging Face Hub; log in with hf auth login."""
    hub_model_id: str | None = None
    """Repository there; by default the name of --output_dir."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(1, self, "logging_steps", "num_validation_images", "num_inference_steps",
                  "checkpoints_total_limit")  # fmt: skip
        at_least(8, self, "num_evaluation_samples")  # nearest neighbours, and variances
        at_least(0, self, "lr_warmup_steps", "max_grad_norm",
                  "adam_weight_decay", "lr_min", "checkpointing_steps",
                  "validation_steps", "gradient_share_steps", "evaluation_steps")  # fmt: skip
        between(0, 1, self, "adam_beta1", "adam_beta2", "ema_max_decay", "ema_min_decay")
        for name in ("learning_rate", "adam_epsilon", "ema_inv_gamma", "ema_power", "snr_gamma",
                     "logit_std"):  # fmt: skip
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise UsageError(f"{name} must be greater than 0, got {value}")
        if self.mixed_precision is None:
            object.__setattr__(self, "mixed_precision", _accelerates_precision())
        self._check_capture()
        self._check_evaluation()

    def _check_capture(self) -> None:
        for name, on in (
            ("mixed_precision fp16", self.mixed_precision == "fp16"),
            ("gradient_checkpointing", self.gradient_checkpointing),
        ):
            if self.cuda_graphs and on:
                raise UsageError(f"cuda_graphs does not go with {name}: leave one of them out")

    def _check_evaluation(self) -> None:
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

    def check_complete(self) -> None:
        """Raises UsageError if what has no default was not given."""
        if not self.output_dir:
            raise UsageError("--output_dir is missing: name the folder of the run")
        self.check_data()


def _accelerates_precision() -> str:
    """What `accelerate launch` hands on of its flags and its config file."""
    name = os.environ.get("ACCELERATE_MIXED_PRECISION", "no").lower()
    if name not in ("no", "fp16", "bf16"):
        raise UsageError(
            f"mixed_precision {name}, as accelerate has it, is not supported: give no, fp16 or bf16"
        )
    return name
