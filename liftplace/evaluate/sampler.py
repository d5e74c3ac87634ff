"""Images from a model of any family: its scheduler, and the VAE and text encoders around it."""

import json
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from liftplace.common.errors import UsageError
from liftplace.data.encoder import Encoder
from liftplace.evaluate.sampling import sample_images
from liftplace.models.noise import NoiseProcess


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
        first: int = 0,
        class_labels: Sequence[int] | None = None,
        prompts: Sequence[str] | None = None,
        guidance_scale: float = 1.0,
        batch_size: int = 64,
        **options,
    ) -> Tensor:
        """Images (num_samples, channels, height, width), float32, on the CPU, in [-1, 1].

        Args:
            model: student or teacher.
            first: number of the first one, where these are a part of more samples: it tells whose
                turn it is.
            class_labels, prompts: of the samples, in turn; all classes or no text by default.
            guidance_scale: of classifier-free guidance; 1 for none.
            options: of `sample_images`.

        Raises:
            UsageError: conditions or guidance that the model does not take.
        """
        null, numbers = None, range(first, first + num_samples)
        if guidance_scale != 1 and self._is_conditioned:
            null = self.encoder.null_conditions(num_samples)
        return sample_images(
            model,
            self.process.sampler(),
            num_samples=num_samples,
            batch_size=batch_size,
            size=self.encoder.shape[-1],
            conditions=self._conditions(numbers, class_labels, prompts, batch_size),
            null_conditions=null,
            guidance_scale=guidance_scale,
            decode=self.encoder.decode,
            **options,
        )

    def record(self) -> dict:
        """Class and settings of the scheduler, as JSON has them; what is not finite is text."""
        scheduler = self.process.sampler()
        # diffusers notes under names with an underscore where a config came from.
        settings = {name: x for name, x in scheduler.config.items() if not name.startswith("_")}
        text = json.dumps({"class": type(scheduler).__name__, **settings}, default=str)
        return json.loads(text, parse_constant=str)

    @property
    def _is_conditioned(self) -> bool:
        return self.encoder.takes_captions or self.encoder.takes_labels

    def _conditions(self, numbers: range, class_labels, prompts, batch_size: int) -> dict:
        encoder, items = self.encoder, {}
        if prompts is not None and not encoder.takes_captions:
            raise UsageError(f"{encoder.folder} takes no text: leave out --prompts")
        if class_labels is not None and not encoder.takes_labels:
            raise UsageError(f"{encoder.folder} takes no classes: leave out --class_labels")
        if encoder.takes_labels:
            items["class_labels"] = self._labels(numbers, class_labels)
        if not encoder.takes_captions:
            items["images"] = torch.empty(len(numbers), 0)  # says how many
            return encoder.conditions(items)
        texts = in_turn(prompts or [""], numbers)
        parts = [
            encoder.conditions({"captions": texts[first : first + batch_size]})
            for first in range(0, len(numbers), batch_size)
        ]
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    def _labels(self, numbers: range, class_labels: Sequence[int] | None) -> Tensor:
        classes = self.encoder.family.num_classes(self.encoder.config)
        labels = torch.tensor(class_labels or range(classes))
        if not 0 <= labels.min() <= labels.max() < classes:
            raise UsageError(
                f"--class_labels must be in 0 ... {classes - 1}, got {list(class_labels)}"
            )
        return labels[torch.tensor(numbers) % len(labels)]


def in_turn(values: Sequence[str], numbers: range) -> list[str]:
    """The values of these samples, where all samples take them in turn."""
    return [values[number % len(values)] for number in numbers]


def sampling_options(config) -> dict:
    """What `Sampler.sample` takes of a command's settings."""
    names = (
        "num_inference_steps", "batch_size", "class_labels", "prompts", "guidance_scale"
    )  # fmt: skip
    return {name: getattr(config, name) for name in names}
