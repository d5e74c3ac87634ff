"""The seam between the toolkit and a diffusers model class."""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from liftplace.common.errors import UsageError
from liftplace.families.channel_graph import ChannelGraph

Config = Mapping[str, Any]
Conditions = dict[str, Tensor]


class Family(ABC):
    """How to call a model class, what it predicts, where to hook it and how it is made smaller.

    Every `config` is a model's config.json with the defaults filled in, as `model.config` is.
    Conditions are a flat dict of tensors by the names that the diffusers model uses for them, the
    batch first: what `embeddings` and `num_classes` announce.
    """

    class_name: ClassVar[str]
    """Of the diffusers class, as in config.json."""
    component: ClassVar[str]
    """Its name in a pipeline: "unet" or "transformer"."""
    trains_variance: ClassVar[bool] = False
    """Whether a variance that it predicts is trained, since samplers read it."""

    takes_any_size: ClassVar[bool] = False
    """Whether a model with a `sample_size` works at other sizes too."""

    @property
    def model_class(self) -> type[nn.Module]:
        import diffusers

        return getattr(diffusers, self.class_name)

    def complete(self, config: Config) -> dict[str, Any]:
        """A config with what it leaves out filled in by the defaults of the diffusers class."""
        parameters = inspect.signature(self.model_class.__init__).parameters.values()
        defaults = {p.name: p.default for p in parameters if p.default is not p.empty}
        return defaults | dict(config)

    def new(self, config: Config) -> nn.Module:
        """A model of this config with new weights. What the class does not take is left out, as
        diffusers does: a config.json has the names of the version that wrote it."""
        known = inspect.signature(self.model_class.__init__).parameters
        return self.model_class(**{name: x for name, x in config.items() if name in known})

    def unsupported_reason(self, config: Config) -> str | None:
        """The reason why a model with this config cannot be trained; None where it can."""
        out, into = self.out_channels(config), self.in_channels(config)
        if out < into:
            return (
                f"has out_channels {out} and in_channels {into}: beside the noisy image it is "
                "given another one or a mask, as models of inpainting, editing, depth and "
                "upscaling are, which is not supported"
            )
        if out not in (into, 2 * into):
            return f"has out_channels {out} and in_channels {into}: need the same, or twice"
        if config.get("time_embedding_type") == "fourier":
            return "has time_embedding_type fourier: it is told levels of noise, not timesteps"
        if type(self.sample_size(config)) not in (int, type(None)):
            return (
                f"has sample_size {config['sample_size']}: need one number, the height and width "
                "of what it denoises, or twice the same"
            )
        return None

    # What it denoises

    def in_channels(self, config: Config) -> int:
        """Channels of an image or latent."""
        return config["in_channels"]

    def out_channels(self, config: Config) -> int:
        """Channels of the output: twice `in_channels` where it also predicts a variance."""
        return config["out_channels"] or config["in_channels"]

    def sample_size(self, config: Config) -> int | None:
        """Height and width of an image or latent; None where the model takes any."""
        size = config["sample_size"]
        if isinstance(size, (list, tuple)) and len(set(size)) == 1:
            return size[0]
        return size

    # Conditions

    def num_classes(self, config: Config) -> int | None:
        """Classes of `class_labels`, without the empty one; None where it takes no labels."""
        return None

    def null_class(self, config: Config) -> int | None:
        """The label that stands for no class; None where there is none."""
        return None

    def embeddings(self, config: Config) -> dict[str, tuple[int | None, ...]]:
        """Shapes of one sample's text conditions by name; None for a free number of tokens."""
        return {}

    def encode_text(self, pipeline, captions: Sequence[str]) -> Conditions:
        """The text conditions of these captions.

        Args:
            pipeline: of the teacher's folder; of its components only the tokenizers and text
                encoders are there.
        """
        raise TypeError(f"{self.class_name} takes no captions")

    def size_conditions(self, config: Config, batch: int, height: int, width: int) -> Conditions:
        """Conditions that follow from the images' height and width in pixels alone."""
        return {}

    @abstractmethod
    def predict(
        self, model: nn.Module, noisy: Tensor, timesteps: Tensor, conditions: Conditions
    ) -> Tensor:
        """The output (batch, out_channels, height, width).

        Args:
            model: of this family, or what wraps one and passes arguments on.
            noisy: (batch, in_channels, height, width).
            timesteps: (batch,).
            conditions: what `embeddings`, `num_classes` and `size_conditions` announce.
        """

    def prepare_training(self, model: nn.Module) -> None:
        """Keep the model from dropping labels at random in training mode, in DiT each block by
        itself: teacher and student must see the same labels."""
        from diffusers.models.embeddings import LabelEmbedding

        for module in model.modules():
            if isinstance(module, LabelEmbedding):
                module.dropout_prob = 0.0

    # Where to hook it

    @abstractmethod
    def blocks(self, model: nn.Module) -> dict[str, nn.Module]:
        """The blocks in the order of the forward pass, by their names in `named_modules`."""

    def block_output(self, output: Any) -> Tensor:
        """The image's hidden state in what a block's forward returned."""
        return output[0] if isinstance(output, tuple) else output

    # How it is made smaller

    def layers(self, config: Config) -> dict[str, int]:
        """Lists of blocks of which any may be left out, with their lengths, by their names in the
        model, in the order of the forward pass. Empty where blocks cannot be left out."""
        return {}

    def narrow_config(
        self, config: Config, width: float, norm_num_groups: int | None = None
    ) -> dict[str, Any]:
        """The constructor arguments of a student with this share of the channels or heads.

        Args:
            norm_num_groups: groups of its group norms, if not as many as keep the mean.

        Raises:
            UsageError: a width that cannot be rounded to what norms and heads need, or groups of a
                model without group norms.
        """
        raise UsageError(f"width: {self.class_name} cannot be narrowed")

    def channel_graph(self, teacher: nn.Module, student_config: Config) -> ChannelGraph:
        """The channels that the axes of the teacher's weights run over, and how many stay."""
        raise UsageError(f"width: {self.class_name} cannot be narrowed")

    # For checks and counts

    def skeleton(self, config: Config) -> nn.Module:
        """A model without weights, on the meta device: for its names and sizes."""
        with torch.device("meta"):
            return self.new(config)

    def unused_weights(self, config: Config) -> list[str]:
        """Names of weights that the output does not depend on, because of an input of the model
        that the family does not give. Nothing is computed."""
        blank = self.skeleton(config)
        with torch.device("meta"):
            inputs = self.example(config)
        self.predict(blank, *inputs).sum().backward()
        weights = ((name, w) for name, w in blank.named_parameters() if w.requires_grad)
        return [name for name, weight in weights if weight.grad is None]

    def example(
        self,
        config: Config,
        *,
        batch: int = 1,
        size: int | tuple[int, int] | None = None,
        tokens: int = 8,
    ):
        """Random inputs (noisy, timesteps, conditions) of `predict`, on the CPU."""
        size = size or self.sample_size(config) or 16
        height, width = (size, size) if isinstance(size, int) else size
        noisy = torch.randn(batch, self.in_channels(config), height, width)
        conditions = {
            name: torch.randn(batch, *(length or tokens for length in shape))
            for name, shape in self.embeddings(config).items()
        }
        if self.num_classes(config) is not None:
            conditions["class_labels"] = torch.arange(batch) % self.num_classes(config)
        conditions |= self.size_conditions(config, batch, 8 * height, 8 * width)
        return noisy, torch.full((batch,), 500.0).long(), conditions


def split_variance(output: Tensor, channels: int) -> tuple[Tensor, Tensor | None]:
    """Prediction and, where the model learns it, variance: the channels beyond the first
    `channels` (Nichol and Dhariwal, arXiv 2102.09672, section 3.1)."""
    if output.shape[1] == channels:
        return output, None
    return output[:, :channels], output[:, channels:]
