"""Settings of the noise process. Importing them imports no model library."""

from dataclasses import dataclass
from typing import Literal

from liftplace.common.errors import UsageError
from liftplace.common.settings import Settings, positive


@dataclass(frozen=True, kw_only=True)
class TimestepSampling(Settings):
    """Which timesteps are drawn, and what a sample weighs in the task loss.

    Min-SNR weighting is from Hang et al. (arXiv 2303.09556, section 3.4), the schemes of flow
    matching from Esser et al. (arXiv 2403.03206, section 3.1): logit_normal and mode shape the
    density, sigma_sqrt and cosmap weigh a uniform one. With `antithetic_timesteps` the second half
    of a batch mirrors the first, t and T - 1 - t.
    """

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

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "snr_gamma", "logit_std")


@dataclass(frozen=True, kw_only=True)
class TeacherConfig(Settings):
    """The teacher, and which of its versions."""

    pretrained_teacher_name_or_path: str = ""
    """Folder of the teacher, or its name on the Hugging Face Hub."""
    revision: str | None = None
    """Branch, tag or commit of a teacher on the Hub."""
    variant: str | None = None
    """Variant of the teacher's weights, such as fp16; by default plain ones, or the only one."""

    def check_teacher(self) -> None:
        """Raises UsageError unless a teacher was given."""
        if not self.pretrained_teacher_name_or_path:
            raise UsageError("--pretrained_teacher_name_or_path is missing: name the teacher")
