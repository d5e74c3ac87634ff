"""The settings of `liftplace train` and `liftplace distill`, and the presets of the latter.

One frozen dataclass a command is behind its flags, its YAML file and Python. Importing this imports
no model library.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from liftplace.common.errors import UsageError
from liftplace.common.settings import Settings, at_least, between, positive, read_yaml
from liftplace.models.config import TeacherConfig
from liftplace.train.run_config import RunConfig

PRESETS = Path(__file__).resolve().parents[1] / "configs"
Schedule = Literal["constant", "linear", "cosine"]


@dataclass(frozen=True, kw_only=True)
class TrainConfig(RunConfig):
    """Train a model of pixels from scratch: a UNet2DModel, or what a config.json describes."""

    model_config_name_or_path: str | None = None
    """A diffusers folder or config.json whose architecture to use, instead of the three below."""
    block_out_channels: tuple[int, ...] = (32, 32)
    """Channels of each level, without attention."""
    layers_per_block: int = 1
    norm_num_groups: int = 8

    prediction_type: Literal["epsilon", "sample", "v_prediction", "flow"] = "epsilon"
    """What the model predicts; flow is flow matching."""
    ddpm_num_steps: int = 1000
    """Timesteps of the noise process."""
    ddpm_beta_schedule: Literal["linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid"] = (
        "linear"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(1, self, "layers_per_block", "norm_num_groups")
        at_least(2, self, "ddpm_num_steps")
        _check_channels(self, "block_out_channels")


@dataclass(frozen=True, kw_only=True)
class StudentConfig(Settings):
    """The student to start from."""

    student: str | None = None
    """Folder of the student to start from, instead of a new one that is the teacher shrunk."""
    student_revision: str | None = None
    """Branch, tag or commit of a student on the Hub."""
    student_variant: str | None = None
    """Variant of the student's weights, such as fp16."""
    student_block_out_channels: tuple[int, ...] | None = None
    """Channels of each level of a new student."""
    student_layers_per_block: int | None = None
    """Layers of each level of a new student; by default the teacher's."""
    student_norm_num_groups: int | None = None
    """Norm groups of a new student; by default as many as leave each norm four channels a group,
    or the two or three that the teacher's have."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(1, self, "student_layers_per_block", "student_norm_num_groups")
        if self.student_block_out_channels is not None:
            _check_channels(self, "student_block_out_channels")

    def check_student(self) -> None:
        """Raises UsageError unless exactly one student was given."""
        shrunk = (
            self.student_block_out_channels
            or self.student_layers_per_block
            or self.student_norm_num_groups
        )
        if self.student is not None and shrunk is not None:
            raise UsageError("give --student or --student_block_out_channels, not both")
        if self.student is None and self.student_block_out_channels is None:
            raise UsageError(
                "no student: give --student FOLDER, or --student_block_out_channels to make one"
            )


@dataclass(frozen=True, kw_only=True)
class ObjectiveConfig(Settings):
    """What the student minimises of its output: see `liftplace.train.objective`."""

    loss: Literal["none", "mse", "lift", "place"] = "mse"
    """Distillation loss beside the task loss; none trains without the teacher."""
    task_weight: float = 1.0
    task_weight_schedule: Schedule = "constant"
    task_weight_end: float = 0.0
    """Weight of the task loss; by a linear or cosine schedule it goes to the end over the run."""
    kd_weight: float = 1.0
    kd_weight_schedule: Schedule = "constant"
    kd_weight_end: float = 0.0
    """Weight of the distillation loss, likewise."""
    kd_min_timestep: float = 0.0
    """Distil the output only from this timestep on, where images are noisy; 0 for all."""
    mse_weight: float = 0.0
    mse_weight_schedule: Schedule = "constant"
    mse_weight_end: float = 0.0
    """Weight of the squared error to the teacher's output, beside --loss."""
    moment_weight: float = 0.0
    moment_weight_schedule: Schedule = "constant"
    moment_weight_end: float = 0.0
    """Weight of the difference of each channel's mean to the teacher's, beside --loss."""
    moment_norm: Literal["l1", "l2", "huber"] = "l1"
    """Norm of that difference: l1 pulls until the means agree, huber fades near there."""
    moments: Literal["mean", "mean_std"] = "mean"
    """The means alone, or standard deviations too."""
    kd_space: Literal["prediction", "epsilon", "v_prediction", "sample"] = "prediction"
    """Weigh each sample in --loss as an error of the noise, of v or of the clean image would be,
    whatever the teacher predicts."""
    kd_space_max_weight: float = 100.0
    """Largest of those weights."""
    group_size: int | None = None
    """Elements a PLACE group; 16 unless --num_groups is given."""
    num_groups: int | None = None
    """PLACE groups a row, instead of --group_size."""
    scope: Literal["channel", "sample"] = "channel"
    """What is sorted and fitted as one row."""
    norm: Literal["l1", "l2"] = "l1"
    """Norm of the coarse term."""
    weight: float | Literal["adaptive", "linear", "cosine"] = "adaptive"
    """Weight of the fine term: adaptive, a ramp from 0 to 1 over the run, or a number."""
    terms: Literal["both", "coarse", "fine"] = "both"
    reduction: Literal["mean", "sum"] = "mean"
    """mean over elements, or sum over a sample, of every loss."""
    eps: float | None = None
    """Added to the variance in the fits; 1e-7 unless --eps_of_sum is given."""
    eps_of_sum: float | None = None
    """Instead of --eps: added to the sum of squares whose mean is the variance."""
    impl: Literal["auto", "triton", "cuda", "native", "torch", "reference"] = "auto"
    """Implementation of the distillation loss."""
    variance_weight: float | None = None
    """Weight, inside the task loss, of the variational bound for a student that learns its
    variance; by default 1 for a DiT and 0 for a PixArt."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(0, self, "task_weight", "task_weight_end", "kd_weight", "kd_weight_end")
        at_least(0, self, "mse_weight", "mse_weight_end", "moment_weight", "moment_weight_end")
        at_least(0, self, "kd_min_timestep", "variance_weight", "eps", "eps_of_sum")
        at_least(1, self, "num_groups")
        at_least(2, self, "group_size")
        positive(self, "kd_space_max_weight")
        if self.kd_space != "prediction" and self.loss == "none":
            raise UsageError(
                f"kd_space {self.kd_space} weighs --loss, which is none: give --loss mse, or leave "
                "it out"
            )
        if isinstance(self.weight, float):
            between(0, 1, self, "weight")
        for one, other in (("eps", "eps_of_sum"), ("group_size", "num_groups")):
            pair = getattr(self, one), getattr(self, other)
            if None not in pair:
                raise UsageError(f"give {one} or {other}, not both: got {pair[0]} and {pair[1]}")


@dataclass(frozen=True, kw_only=True)
class FeatureConfig(Settings):
    """What the student minimises of its hidden states: see `liftplace.train.features`."""

    feature_weight: float = 0.0
    feature_weight_schedule: Schedule = "constant"
    feature_weight_end: float = 0.0
    """Weight of the distillation of hidden states; 0 for none."""
    feature_layers: tuple[str, ...] | None = None
    """Blocks to compare, as mid_block or student's:teacher's, or by_position; by default those that
    the student's liftplace_config.json matches, else by_position."""
    feature_adapters: Literal["where_needed", "always"] = "where_needed"
    """1x1 convolutions or linear maps from the student's channels to the teacher's."""
    feature_mask: float | None = None
    """Leave out hidden values that are more than so many standard deviations off; for
    transformers."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(0, self, "feature_weight", "feature_weight_end")
        positive(self, "feature_mask")


@dataclass(frozen=True, kw_only=True)
class DistillConfig(TeacherConfig, FeatureConfig, ObjectiveConfig, StudentConfig, RunConfig):
    """Distil a student from a teacher."""

    has_presets: ClassVar[bool] = True

    @classmethod
    def of_preset(cls, name: str, **changes) -> "DistillConfig":
        """The settings of a preset (ddpm, sd or dit), with these in their place."""
        return cls(**read_yaml(preset_file(name), cls) | changes)

    def check_complete(self) -> None:
        super().check_complete()
        self.check_teacher()
        self.check_student()


def preset_file(name: str) -> Path:
    """The YAML file of a preset, the settings of an experiment of the paper.

    Raises:
        UsageError: there is no such preset.
    """
    path = PRESETS / f"{name}.yaml"
    if path not in preset_files():
        known = ", ".join(file.stem for file in preset_files())
        raise UsageError(f"there is no --preset {name}: choose from {known}")
    return path


def preset_files() -> list[Path]:
    return sorted(PRESETS.glob("*.yaml"))


def _check_channels(config: Settings, name: str) -> None:
    channels = getattr(config, name)
    if not channels or min(channels) < 1:
        raise UsageError(f"{name} must be one positive number a level, got {channels}")
