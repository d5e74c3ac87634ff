"""What the demo does, in numbers."""

from dataclasses import dataclass
from typing import Any

from liftplace.train.config import DistillConfig


@dataclass(frozen=True, kw_only=True)
class DemoSettings:
    """Budget and settings, the same for every student."""

    seed: int = 0  # of the batches, and of the noise that samples start from

    # Every student is pruned from the teacher and sees the same batches and noise.
    width: float = 0.34375
    narrow_norm_num_groups: int = 8  # the teacher's, as pruners leave them: one channel a group
    max_train_steps: int = 800
    train_batch_size: int = 16
    learning_rate: float = 1e-2
    lr_warmup_steps: int = 50
    group_size: int = 16  # of PLACE

    # Every set that is scored has num_samples images: real, teacher's and students'.
    num_samples: int = 256
    num_inference_steps: int = 25  # DDIM, as the teacher's scheduler says

    num_shown: int = 12  # columns of samples.png
    num_map_images: int = 64
    map_timesteps: tuple[int, ...] = (25, 100, 250, 400, 550, 700, 850, 975)

    def distill_config(self, output_dir: str, **objective: Any) -> DistillConfig:
        """These settings as the trainer takes them, with those of an objective."""
        return DistillConfig(
            output_dir=output_dir,
            dataset_name="digits",
            seed=self.seed,
            train_batch_size=self.train_batch_size,
            max_train_steps=self.max_train_steps,
            learning_rate=self.learning_rate,
            lr_warmup_steps=self.lr_warmup_steps,
            use_ema=True,
            checkpointing_steps=0,
            logging_steps=1,
            report_to="none",
            **objective,
        )


FULL = DemoSettings()
FAST = DemoSettings(max_train_steps=50, lr_warmup_steps=10, num_samples=128, num_inference_steps=8)
