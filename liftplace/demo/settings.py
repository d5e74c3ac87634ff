"""What the demo does, in numbers."""

from dataclasses import dataclass

from liftplace.train.run_config import RunConfig


@dataclass(frozen=True, kw_only=True)
class DemoSettings:
    """Budget and settings, the same for every method."""

    seed: int = 0  # of the initial weights, the batches, and the noise that samples start from

    # Chosen for legible samples of the student without a teacher ("no KD") in the time there is.
    # Every student starts from the same weights and sees the same batches and noise.
    student_block_out_channels: tuple[int, ...] = (12, 8, 8)
    student_norm_num_groups: int = 4
    max_train_steps: int = 700
    train_batch_size: int = 16
    learning_rate: float = 1e-2
    lr_warmup_steps: int = 50
    task_weight: float = 1.0
    kd_weight: float = 1.0
    group_size: int = 16  # of PLACE

    # Every set that is scored has num_samples images: real, teacher's and students'.
    num_samples: int = 500
    num_inference_steps: int = 12  # DDIM

    num_shown: int = 12  # columns of samples.png
    num_map_images: int = 64
    map_timesteps: tuple[int, ...] = (25, 100, 250, 400, 550, 700, 850, 975)

    def run_config(self, output_dir: str) -> RunConfig:
        """These settings as the trainer takes them."""
        return RunConfig(
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
        )


FULL = DemoSettings()
FAST = DemoSettings(max_train_steps=50, lr_warmup_steps=10, num_samples=128, num_inference_steps=8)
