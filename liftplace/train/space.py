"""What an error of the prediction counts as one of the noise, of v or of the clean image."""

import torch
from torch import Tensor

from liftplace.common.errors import UsageError
from liftplace.models.noise import FLOW, NoiseProcess, NoisyBatch


class SpaceWeight:
    """Of each sample, its squared error in another space over that of what the model predicts.

    At a fixed noisy input the errors are multiples of each other: the clean image's is
    sigma / alpha times the noise's and sigma times that of v, where alpha^2 = abar and
    sigma^2 = 1 - abar. In flow matching, whose sigma is the noise's share, it is sigma times that
    of the velocity.

    Args:
        process: what the model predicts, and its alphas.
        space: "epsilon", "v_prediction" or "sample".
        most: the largest weight: from noise to image it goes to tens of thousands.

    Raises:
        UsageError: a space that flow matching does not have.
    """

    def __init__(self, process: NoiseProcess, space: str, most: float) -> None:
        self._most = most
        self._steps = process.scheduler.config.num_train_timesteps
        self._table = None  # (timesteps,), float32; None: by sigma
        if process.prediction_type == FLOW:
            if space != "sample":
                raise UsageError(
                    f"kd_space {space} is of diffusion, and the teacher is of flow matching: "
                    "give sample or prediction"
                )
            return
        abar = process.scheduler.alphas_cumprod.double()
        to_sample = {
            "epsilon": (1 - abar) / abar, "v_prediction": 1 - abar, "sample": torch.ones_like(abar)
        }  # fmt: skip
        weights = to_sample[process.prediction_type] / to_sample[space]
        self._table = weights.clamp(max=most).float()

    def __call__(self, batch: NoisyBatch) -> Tensor:
        """(batch,), float32, on the batch's device."""
        if self._table is None:
            return (batch.timesteps.float() / self._steps).square().clamp(max=self._most)
        self._table = self._table.to(batch.timesteps.device)  # a copy the first time only
        return self._table[batch.timesteps]
