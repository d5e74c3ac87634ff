"""From images, captions and labels to what a model is trained on: latents and conditions."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from diffusers import DiffusionPipeline, VQModel
from torch import Tensor

from liftplace.common.distributed import distributed_state
from liftplace.common.errors import UsageError
from liftplace.data.autoencoder import latent_scaling, load_vae, part_of
from liftplace.data.cache import CachedLatents
from liftplace.data.long_captions import count_long, quiet_about_length
from liftplace.data.size import Resolution, height_width
from liftplace.data.text import (
    is_of_text,
    load_text,
    move_text_encoders,
    one_line,
    pipeline_index,
)

LATENTS = ("latent_mean", "latent_std")
VOCABULARIES = ("vocab.json", "merges.txt", "tokenizer.json", "spiece.model")


class Encoder:
    """The frozen parts of a pipeline around the model that denoises: VAE and text encoders.

    A folder without a VAE is of a model of pixels; its latents are the images themselves. The text
    encoders are loaded when the first caption is encoded.

    Args:
        loaded: a `LoadedModel`: its `family`, `model.config`, `pipeline` and `variant` are read.
        resolution: of the images; by default those that the model works at.

    Raises:
        UsageError: a VAE that cannot be read, or whose latents have other channels than the model;
            a resolution that the model does not take.
    """

    def __init__(self, loaded, resolution: Resolution | None = None) -> None:
        self.family = loaded.family
        self.config = loaded.model.config
        self.folder = Path(loaded.pipeline)
        self.variant = loaded.variant
        self.device = torch.device("cpu")
        self.dtype = torch.float32
        self.vae = load_vae(self.folder, self.variant)
        self._null_text: dict[str, Tensor] | None = None
        self._mentioned: set[int] = set()
        self._sizes_by_batch: dict[int, dict[str, Tensor]] = {}
        if self.vae is not None:
            made, taken = self.vae.config.latent_channels, self.family.in_channels(self.config)
            if made != taken:
                raise UsageError(
                    f"{self.folder}: its VAE makes latents of {made} channels, but its "
                    f"{self.family.component} takes {taken}: they are of different models"
                )
        self.resolution = self._checked_resolution(resolution)

    def to(self, device: torch.device | str, dtype: torch.dtype = torch.float32) -> "Encoder":
        """Move the encoders, and compute in `dtype`; results are float32 whatever it is."""
        self.device, self.dtype = torch.device(device), dtype
        if self.vae is not None:
            # Activations of a VAE that asks for it overflow in float16.
            overflows = dtype == torch.float16 and self.vae.config.get("force_upcast", False)
            needed = torch.float32 if overflows else dtype
            self.vae.to(self.device)
            if self.vae.dtype != needed:  # diffusers warns of every cast, even of one to the same
                self.vae.to(needed)
        if self._null_text is not None:
            self._null_text = {name: x.to(self.device) for name, x in self._null_text.items()}
        self._sizes_by_batch.clear()
        if "_pipeline" in self.__dict__:
            move_text_encoders(self._pipeline, self.device, dtype)
        return self

    # What goes in

    @property
    def takes_labels(self) -> bool:
        return self.family.num_classes(self.config) is not None

    @property
    def takes_captions(self) -> bool:
        return bool(self.family.embeddings(self.config))

    @property
    def factor(self) -> int:
        """Pixels, in height and in width, of one latent."""
        return 1 if self.vae is None else 2 ** (len(self.vae.config.block_out_channels) - 1)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of what the model denoises."""
        height, width = height_width(self.resolution)
        return (
            self.family.in_channels(self.config),
            height // self.factor,
            width // self.factor,
        )

    def check(self, dataset, *, random_flip: bool = False) -> None:
        """Make sure, before anything is spent, that the model can be trained on this dataset. With
        a cache, the empty caption then comes from there, and no text encoder is loaded.

        Raises:
            UsageError: channels, classes, captions, text encoders or cache do not fit.
        """
        if isinstance(dataset, CachedLatents):
            if random_flip:
                raise UsageError(
                    f"--random_flip does not go with {dataset.folder}: a cache holds each image "
                    "one way round"
                )
            dataset.check(self)
            if dataset.null_text is not None:
                self._null_text = {name: x.float() for name, x in dataset.null_text.items()}
        else:
            self._check_channels(dataset.channels)
            if self.takes_captions and not dataset.has_captions:
                raise UsageError(f"{self.folder} takes captions, but the dataset has none")
        if self.takes_labels:
            self._check_classes(dataset)
        if self.takes_captions:
            self._check_text()
            if not isinstance(dataset, CachedLatents):
                self.mention_long(dataset.captions())

    # What comes out

    def latents(self, items: Mapping[str, Any], noise: Tensor | None = None) -> Tensor:
        """What the model denoises, without noise: (batch, channels, height, width), float32.

        Args:
            items: a batch of a dataset: `images` (batch, channels, height, width) in [-1, 1], or
                `latent_mean` and `latent_std` of a cache.
            noise: standard normal, in the shape of the result, by which latents are drawn from the
                VAE's posterior; None for its mean. Pixels need none.
        """
        if "latent_mean" in items:
            mean, std = (items[name].to(self.device).float() for name in LATENTS)
        elif self.vae is None:
            return items["images"].to(self.device)
        else:
            mean, std = self.posterior(items["images"])
        return mean if noise is None else mean + std * noise.to(mean)

    @torch.no_grad()
    def posterior(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the latents, as the model takes them: shifted, scaled."""
        encoded = self.vae.encode(images.to(self.device, self.vae.dtype))
        shift, scale = self._shift_and_scale()
        if isinstance(self.vae, VQModel):  # one latent an image; the decoder quantises
            latents = encoded.latents.float()
            return (latents - shift) * scale, torch.zeros_like(latents)
        distribution = encoded.latent_dist
        return (distribution.mean.float() - shift) * scale, distribution.std.float() * scale

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Latents to images (batch, channels, height, width), float32, about [-1, 1]."""
        if self.vae is None:
            return latents
        shift, scale = self._shift_and_scale()
        latents = (latents.to(self.device).float() / scale + shift).to(self.vae.dtype)
        # One at a time: the decoder needs a hundred times the memory of what it returns.
        images = [self.vae.decode(latent, return_dict=False)[0] for latent in latents.split(1)]
        return torch.cat(images).float()

    def conditions(self, items: Mapping[str, Any]) -> dict[str, Tensor]:
        """The conditions of the model by name, float32 or int64.

        Args:
            items: a batch: `captions`, a list of text, or the embeddings of a cache;
                `class_labels` (batch,).
        """
        names = self.family.embeddings(self.config)
        if all(name in items for name in names):
            conditions = {name: items[name].to(self.device).float() for name in names}
        else:
            conditions = self.text(items["captions"])
        if self.takes_labels:
            conditions["class_labels"] = items["class_labels"].to(self.device)
        return conditions | self._sizes(len(next(iter(conditions.values())))) if conditions else {}

    def null_conditions(self, batch: int) -> dict[str, Tensor]:
        """The conditions of no caption or no class, for dropout and classifier-free guidance.

        Raises:
            UsageError: the model has no label that stands for no class.
        """
        conditions = {}
        if self.takes_captions:
            null = self.null_text()
            conditions = {
                name: x.to(self.device).expand(batch, *x.shape[1:]) for name, x in null.items()
            }
        if self.takes_labels:
            label = self.family.null_class(self.config)
            if label is None:
                raise UsageError(
                    f"{self.folder} has no label for no class: leave --conditioning_dropout_prob "
                    "at 0 and --guidance_scale at 1"
                )
            conditions["class_labels"] = torch.full((batch,), label, device=self.device)
        return conditions | self._sizes(batch)

    def null_text(self) -> dict[str, Tensor]:
        """The embeddings (1, ...) of no caption: those of "", or zeros where the pipeline says so,
        as SDXL's does."""
        if self._null_text is None:
            null = self.text([""])
            if self._pipeline.config.get("force_zeros_for_empty_prompt"):
                null = {name: torch.zeros_like(value) for name, value in null.items()}
            self._null_text = null
        return self._null_text

    @torch.no_grad()
    def text(self, captions: list[str]) -> dict[str, Tensor]:
        """The embeddings of these captions by name, (len(captions), ...), float32."""
        with quiet_about_length(self._pipeline):
            encoded = self.family.encode_text(self._pipeline, captions)
        return {name: value.to(self.device).float() for name, value in encoded.items()}

    def mention_long(self, captions: Sequence[str], what: str = "captions") -> None:
        """Says once how many of these are longer than the text encoders read."""
        key = hash(tuple(captions))
        if not captions or key in self._mentioned or not distributed_state().is_main_process:
            return
        self._mentioned.add(key)
        count, limit = count_long(self._pipeline, captions)
        if count:
            print(
                f"{count:,} of {len(captions):,} {what} are longer than the {limit} tokens that "
                f"{self.folder} reads: the rest of them is cut off"
            )

    @cached_property
    def fingerprint(self) -> dict[str, str | None]:
        """Hashes of what latents and embeddings depend on: same hashes, same results."""
        vae = text = None
        if self.vae is not None:
            vae = _hash(self.folder, [part_of(self.vae)], latent_scaling(self.vae.config))
        if self.takes_captions:
            parts = [name for name in pipeline_index(self.folder) if is_of_text(name)]
            text = _hash(self.folder, sorted(parts), self.family.class_name)
        return {"vae": vae, "text": text}

    # Checks

    def _checked_resolution(self, resolution: Resolution | None) -> Resolution:
        size = self.family.sample_size(self.config)
        native = None if size is None else size * self.factor
        resolution = resolution or native
        if resolution is None:
            raise UsageError(f"--resolution is missing: {self.folder} takes images of any")
        packed = self.config["in_channels"] // self.family.in_channels(self.config)
        multiple = self.factor * math.isqrt(packed)
        if any(side % multiple for side in height_width(resolution)):
            raise UsageError(
                f"--resolution is {resolution}, but {self.folder} needs a multiple of {multiple}"
            )
        if native not in (None, resolution) and not self.family.takes_any_size:
            raise UsageError(f"--resolution is {resolution}, but {self.folder} works at {native}")
        return resolution

    def _check_channels(self, channels: int) -> None:
        pixels = self.vae is None
        needed = self.shape[0] if pixels else self.vae.config.in_channels
        if channels != needed:
            hint = " of latents and has no VAE: give the whole pipeline's folder"
            hint = hint if pixels and needed > 3 else ""
            raise UsageError(
                f"the images have {channels} channels, but {self.folder} takes {needed}{hint}"
            )

    def _check_classes(self, dataset) -> None:
        if dataset.classes is None:
            raise UsageError(f"{self.folder} takes class labels, but the dataset has none")
        count, needed = len(dataset.classes), self.family.num_classes(self.config)
        # Whoever gives numbers to the classes may leave some of the model's out.
        mapped = getattr(dataset, "has_class_map", False)
        if mapped and count > needed:
            raise UsageError(
                f"--class_map gives the number {count - 1}, but {self.folder} was made for "
                f"{needed} classes: give numbers of 0 ... {needed - 1}"
            )
        if count != needed and not mapped:
            raise UsageError(
                f"the dataset has {count} classes, but {self.folder} was made for {needed}: a "
                "folder of images needs one subfolder (which may be empty) for each, or give "
                "--class_map FILE, which says the number of each"
            )

    def _check_text(self) -> None:
        needed = self.family.embeddings(self.config)
        try:
            made = {name: value.shape[1:] for name, value in self.null_text().items()}
        except RuntimeError as error:  # sizes that do not even go together
            raise UsageError(f"{self.folder}: cannot encode captions: {one_line(error)}") from error
        for name, shape in needed.items():
            if len(made[name]) != len(shape) or any(
                taken not in (None, size) for taken, size in zip(shape, made[name], strict=True)
            ):
                raise UsageError(
                    f"{self.folder}: its text encoders make {name} of width {made[name][-1]}, but "
                    f"its {self.family.component} takes {shape[-1]}: they are of different models"
                )

    # Parts

    def _shift_and_scale(self) -> list[float | Tensor]:
        """Numbers, for which nothing is copied to the device; or (1, channels, 1, 1) each."""
        return [
            torch.tensor(each, device=self.device).view(1, -1, 1, 1)
            if isinstance(each, tuple)
            else each
            for each in latent_scaling(self.vae.config)
        ]

    def _sizes(self, batch: int) -> dict[str, Tensor]:
        if batch not in self._sizes_by_batch:  # a copy to the device waits for it
            sizes = self.family.size_conditions(self.config, batch, *height_width(self.resolution))
            moved = {name: value.to(self.device) for name, value in sizes.items()}
            self._sizes_by_batch[batch] = moved
        return self._sizes_by_batch[batch]

    @cached_property
    def _pipeline(self) -> DiffusionPipeline:
        pipeline = load_text(self.folder, self.variant)
        # SD3's asks its transformer for the width of the text encoder that it lacks.
        setattr(pipeline, self.family.component, SimpleNamespace(config=self.config))
        move_text_encoders(pipeline, self.device, self.dtype)
        return pipeline


def _hash(folder: Path, parts: list[str], settings: object) -> str:
    """SHA-256 of the settings and of the weights and vocabularies in these subfolders."""
    digest = hashlib.sha256(repr(settings).encode())
    for part in parts:
        for path in sorted((folder / part).glob("*")):
            if path.suffix == ".safetensors" or path.name in VOCABULARIES:
                digest.update(f"{part}/{path.name}".encode())
                with open(path, "rb") as file:
                    digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
