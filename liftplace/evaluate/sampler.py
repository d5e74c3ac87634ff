"""Images from a model of any family: its scheduler, and the VAE and text encoders around it."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from liftplace.data.encoder import Encoder
from liftplace.errors import UsageError
from liftplace.evaluate.sampling import sample_images
from liftplace.train.process import NoiseProcess


class Sampler:
    """Samples what was trained with this process and this encoder.

    Args:
        process: whose deterministic scheduler is used.
        encoder: makes conditions and decodes latents.
    """

    def __init__(self, process: NoiseProcess, encoder: Encoder) -> None:
        self.process = process
        self.encoder = encoder

    def sample(
        self,
        model: nn.Module,
        *,
        num_samples: int,
        class_labels: Sequence[int] | None = None,
        prompts: Sequence[str] | None = None,
        guidance_scale: float = 1.0,
        batch_size: int = 64,
        **options,
    ) -> Tensor:
        """Images (num_samples, channels, height, width), float32, on the CPU, in [-1, 1].

        Args:
            model: student or teacher.
            class_labels, prompts: of the samples, in turn; all classes or no text by default.
            guidance_scale: of classifier-free guidance; 1 for none.
            options: of `sample_images`.

        Raises:
            UsageError: conditions or guidance that the model does not take.
        """
        null = None
        if guidance_scale != 1 and self._is_conditioned:
            null = self.encoder.null_conditions(num_samples)
        return sample_images(
            model,
            self.process.sampler(),
            num_samples=num_samples,
            batch_size=batch_size,
            size=self.encoder.shape[-1],
            conditions=self._conditions(num_samples, class_labels, prompts, batch_size),
            null_conditions=null,
            guidance_scale=guidance_scale,
            decode=self.encoder.decode,
            **options,
        )

    @property
    def _is_conditioned(self) -> bool:
        return self.encoder.takes_captions or self.encoder.takes_labels

    def _conditions(self, num_samples: int, class_labels, prompts, batch_size: int) -> dict:
        encoder, items = self.encoder, {}
        if prompts is not None and not encoder.takes_captions:
            raise UsageError(f"{encoder.folder} takes no text: leave out --prompts")
        if class_labels is not None and not encoder.takes_labels:
            raise UsageError(f"{encoder.folder} takes no classes: leave out --class_labels")
        if encoder.takes_labels:
            items["class_labels"] = self._labels(num_samples, class_labels)
        if not encoder.takes_captions:
            items["images"] = torch.empty(num_samples, 0)  # says how many
            return encoder.conditions(items)
        texts = list(prompts or [""])
        texts = [texts[number % len(texts)] for number in range(num_samples)]
        parts = [
            encoder.conditions({"captions": texts[first : first + batch_size]})
            for first in range(0, num_samples, batch_size)
        ]
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    def _labels(self, num_samples: int, class_labels: Sequence[int] | None) -> Tensor:
        classes = self.encoder.family.num_classes(self.encoder.config)
        labels = torch.tensor(class_labels or range(classes))
        if not 0 <= labels.min() <= labels.max() < classes:
            raise UsageError(
                f"--class_labels must be in 0 ... {classes - 1}, got {list(class_labels)}"
            )
        return labels[torch.arange(num_samples) % len(labels)]
