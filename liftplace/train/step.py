"""One optimiser step of all learners."""

from collections.abc import Iterator

import torch
from torch import Tensor

from liftplace.common.seeds import derive_seed
from liftplace.models.noise import NoisyBatch
from liftplace.train.learner import Learner
from liftplace.train.run_config import RunConfig
from liftplace.train.teacher import Teacher


def train_step(
    learners: list[Learner],
    batches: Iterator[NoisyBatch],
    teacher: Teacher | None,
    config: RunConfig,
    step: int,
    *,
    share_out: bool = False,
    rank: int = 0,
) -> dict[str, dict[str, Tensor]]:
    """Optimiser step number `step` of every learner, without waiting for the device.

    Args:
        batches: `gradient_accumulation_steps` are taken.
        share_out: look at what each term adds to the gradient of the first batch.
        rank: of this process.

    Returns:
        The step's metrics by the learner's name, see `Learner.update`.
    """
    parts = config.gradient_accumulation_steps
    progress = (step - 1) / config.max_train_steps
    for part in range(parts):
        batch = next(batches)
        answer = None if teacher is None else teacher(batch)
        for learner in learners:
            seed = derive_seed(config.seed, "dropout", step, part, rank)
            if share_out and part == 0:
                learner.share_out(batch, answer, progress=progress, seed=seed)
            torch.manual_seed(seed)
            learner.accumulate(
                batch, answer, share=1 / parts, last=part == parts - 1, progress=progress
            )
    return {learner.name: learner.update(step) for learner in learners}
