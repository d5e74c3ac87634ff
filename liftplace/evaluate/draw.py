"""Parts of the samples of a model, as they are scored."""

import torch
from torch import Tensor, nn

from liftplace.common.errors import NonFiniteError
from liftplace.evaluate.agreement import pair_differences
from liftplace.evaluate.clip import ClipSimilarity
from liftplace.evaluate.config import EvaluateConfig
from liftplace.evaluate.features import extract_features
from liftplace.evaluate.sampler import Sampler, in_turn, sampling_options
from liftplace.models.loading import LoadedModel, set_precision


class Drawer:
    """Draws a part of the samples, and keeps of it what is scored.

    Args:
        config: of the samples.
        sampler: on `device`.
        network: of the features, on `device`.
        model: that samples are drawn from; it is moved and cast.
        teacher: that makes its own from the same noise; None for none.
        clip: that compares samples with their prompts, on `device`; None for none.
        device: where the models run.
    """

    def __init__(
        self, config: EvaluateConfig, sampler: Sampler, network: nn.Module, model: LoadedModel,
        teacher: LoadedModel | None, clip: ClipSimilarity | None, device: torch.device,
    ) -> None:  # fmt: skip
        self.config, self.sampler, self.network = config, sampler, network
        self.clip, self.device = clip, device
        precision = config.mixed_precision
        self.model = set_precision(model.model, device, precision)
        self.teacher = None if teacher is None else set_precision(teacher.model, device, precision)

    def draw(self, seed: int, first: int, count: int) -> dict[str, Tensor]:
        """``features``, and of the other scores what they are made of: (count, ...) each."""
        images = self._images(self.model, seed, first, count)
        features = extract_features(images, self.network, description=None)
        if not features.isfinite().all():
            raise NonFiniteError(f"{self.config.model} makes samples with NaN or infinity in them")
        found = {"features": features}
        if self.clip is not None:
            found["clip"] = self._similarities(images, first)
        if self.teacher is not None:
            theirs = self._images(self.teacher, seed, first, count)
            their_features = extract_features(theirs, self.network, description=None)
            found |= pair_differences(images, theirs, features, their_features)
        return found

    def _images(self, model: nn.Module, seed: int, first: int, count: int) -> Tensor:
        return self.sampler.sample(
            model, num_samples=count, first=first, seed=seed, description=None,
            **sampling_options(self.config),
        )  # fmt: skip

    def _similarities(self, images: Tensor, first: int) -> Tensor:
        prompts = in_turn(self.config.prompts, range(first, first + len(images)))
        size = self.config.batch_size
        parts = [
            self.clip(images[start : start + size].to(self.device), prompts[start : start + size])
            for start in range(0, len(images), size)
        ]
        return torch.cat(parts).cpu()
