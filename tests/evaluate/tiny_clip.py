"""A CLIPModel with random weights, in a folder as the Hugging Face Hub has it."""

import json
from pathlib import Path

import torch
from transformers import CLIPConfig, CLIPModel

from tests.families.pipelines import clip_tokenizer

MEAN, DEVIATION = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)


def tiny_clip(folder: Path) -> Path:
    """Write images of 8 x 8 pixels in, 12 numbers out; texts of up to 16 letters."""
    tokenizer = clip_tokenizer()
    part = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "projection_dim": 12,
    }
    special = {
        name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")
    }
    config = CLIPConfig(
        text_config=part | special | {"vocab_size": len(tokenizer), "max_position_embeddings": 16},
        vision_config=part | {"image_size": 8, "patch_size": 4},
        projection_dim=12,
    )
    with torch.random.fork_rng():
        torch.manual_seed(3)
        CLIPModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    settings = {"image_mean": MEAN, "image_std": DEVIATION, "crop_size": 8}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return folder
