"""How well images go with their captions, by CLIP."""

import json
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from liftplace.common.errors import UsageError
from liftplace.data.text import one_line
from liftplace.evaluate.networks import hash_of_weights

# Mean and deviation of openai's models, for a folder without preprocessor_config.json.
MEAN = (0.48145466, 0.4578275, 0.40821073)
DEVIATION = (0.26862954, 0.26130258, 0.27577711)


class ClipSimilarity(nn.Module):
    """100 max(cos, 0) between the embeddings of an image and of its caption: in [0, 100].

    Source: Hessel et al., arXiv 2104.08718, equation 1, with 100 for 2.5.

    Args:
        name: folder of a CLIPModel with its tokenizer, or its name on the Hugging Face Hub.

    Args (forward):
        images: (N, 1 or 3, side, side), float in [-1, 1]. They are rounded to 8 bits, and scaled
            to the size that the model takes.
        captions: N texts; what is longer than the model reads is cut off.

    Returns (forward):
        (N,) float32.

    Raises:
        UsageError: transformers is not installed, or the model cannot be loaded.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        try:
            from transformers import CLIPModel, CLIPTokenizer
            from transformers.utils import cached_file
        except ImportError as error:
            raise UsageError(
                f'metrics clip needs the package transformers ({error}): pip install "liftplace'
                '[text]"'
            ) from error
        try:
            self.network = CLIPModel.from_pretrained(name).float()
            self.tokenizer = CLIPTokenizer.from_pretrained(name)
            settings = cached_file(
                name, "preprocessor_config.json", _raise_exceptions_for_missing_entries=False
            )
        except (OSError, ValueError, RuntimeError) as error:
            raise UsageError(f"--clip_model {name} cannot be loaded: {one_line(error)}") from error
        settings = json.loads(Path(settings).read_text()) if settings else {}
        self.weights_sha256 = hash_of_weights(self.network)
        self.side = self.network.config.vision_config.image_size
        for constant, default in (("image_mean", MEAN), ("image_std", DEVIATION)):
            value = torch.tensor(settings.get(constant, default)).reshape(3, 1, 1)
            self.register_buffer(constant, value, persistent=False)
        self.requires_grad_(False).eval()

    @property
    def resize(self) -> str:
        return f"{self.side} x {self.side}, bicubic, antialiased"

    @torch.no_grad()
    def forward(self, images: Tensor, captions: Sequence[str]) -> Tensor:
        length = self.network.config.text_config.max_position_embeddings
        options = {"padding": True, "truncation": True, "max_length": length}
        tokens = self.tokenizer(list(captions), return_tensors="pt", **options)
        outputs = self.network(
            input_ids=tokens["input_ids"].to(images.device),
            attention_mask=tokens["attention_mask"].to(images.device),
            pixel_values=self.preprocess(images),
        )
        cosines = F.cosine_similarity(outputs.image_embeds, outputs.text_embeds, dim=1)
        return 100 * cosines.clamp_min(0)

    def preprocess(self, images: Tensor) -> Tensor:
        """The input of the vision model: (N, 3, side, side)."""
        pixels = ((images.float() + 1) * 127.5).round().clamp(0, 255)
        pixels = F.interpolate(pixels, (self.side, self.side), mode="bicubic", antialias=True)
        pixels = pixels.round().clamp(0, 255) / 255
        return (pixels.expand(-1, 3, -1, -1) - self.image_mean) / self.image_std
