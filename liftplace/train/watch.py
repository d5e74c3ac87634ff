"""When a metric was not finite for the first time, found without waiting for the device."""

import torch
from accelerate import Accelerator
from torch import Tensor

from liftplace.common.errors import NonFiniteError

# In the order in which a non-finite one is blamed: parts before what is made of them.
WATCHED = (
    "task", "variance", "coarse", "fine", "weight", "kd", "mse", "feature", "loss", "gradient_norm"
)  # fmt: skip
NEVER = torch.iinfo(torch.int64).max


class Watch:
    """Of one learner's metrics.

    Args:
        accelerator: of the run.
        name: of the learner.
    """

    def __init__(self, accelerator: Accelerator, name: str) -> None:
        self._accelerator, self._name = accelerator, name
        self._first_bad = torch.full((len(WATCHED),), NEVER, device=accelerator.device)

    def note(self, metrics: dict[str, Tensor], step: int) -> None:
        """Look at a step's metrics, 0-d tensors on the device, where the answer stays."""
        fine = torch.zeros((), device=self._first_bad.device)
        watched = torch.stack([metrics.get(name, fine) for name in WATCHED])
        bad = ~watched.isfinite()
        if self._accelerator.scaler is not None:
            bad[-1] = False  # fp16 gradients may overflow: the scaler skips such a step
        self._first_bad = torch.where(bad & (self._first_bad == NEVER), step, self._first_bad)

    def check(self) -> None:
        """Raise NonFiniteError if a metric was not finite in any process. Waits for the device."""
        first_bad = self._accelerator.gather(self._first_bad[None]).amin(dim=0).tolist()
        step = min(first_bad)
        if step != NEVER:
            term = WATCHED[first_bad.index(step)]
            raise NonFiniteError(f"step {step}: {term} of {self._name} is not finite")
