"""A tiny pipeline of each family, in the layout of the folders on the Hugging Face Hub."""

from pathlib import Path

import diffusers
import torch
from diffusers import AutoencoderKL, DDPMPipeline
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

from tests.families.tiny import tiny_model

LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
VAE_FACTOR = 2
SDXL_UNET = {
    "addition_embed_type": "text_time", "addition_time_embed_dim": 4,
    "projection_class_embeddings_input_dim": 6 * 4 + 16, "use_linear_projection": True,
    "transformer_layers_per_block": (1, 2), "attention_head_dim": (2, 4),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
}  # fmt: skip
DIFFUSION = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def tiny_pipeline(name: str, folder: Path, seed: int = 0, **changes) -> Path:
    """Write a pipeline with random weights into `folder`; the same seed gives the same weights.

    Args:
        name: class name of a family, or "SDXL".
        folder: made if need be.
        changes: of the config of the denoising model.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        PIPELINES[name](seed, changes).save_pretrained(folder)
    return Path(folder)


def _ddpm(seed, changes):
    unet = tiny_model("UNet2DModel", seed, **changes)
    return DDPMPipeline(unet=unet, scheduler=diffusers.DDPMScheduler(clip_sample=True))


def _stable_diffusion(seed, changes):
    return diffusers.StableDiffusionPipeline(
        vae=vae(),
        text_encoder=clip(24),
        tokenizer=clip_tokenizer(),
        unet=tiny_model("UNet2DConditionModel", seed, **changes),
        scheduler=diffusers.PNDMScheduler(skip_prk_steps=True, steps_offset=1, **DIFFUSION),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _sdxl(seed, changes):
    return diffusers.StableDiffusionXLPipeline(
        vae=vae(scaling_factor=0.13025),
        text_encoder=clip(8),
        text_encoder_2=clip(16, projection=16),
        tokenizer=clip_tokenizer(),
        tokenizer_2=clip_tokenizer(),
        unet=tiny_model("UNet2DConditionModel", seed, **SDXL_UNET | changes),
        scheduler=diffusers.EulerDiscreteScheduler(**DIFFUSION),
    )


def _dit(seed, changes):
    transformer = tiny_model("DiTTransformer2DModel", seed, **changes)
    classes = transformer.config.num_embeds_ada_norm
    return diffusers.DiTPipeline(
        transformer=transformer,
        vae=vae(),
        scheduler=diffusers.DDIMScheduler(beta_end=0.02, clip_sample=False),
        id2label={str(label): f"class {label}" for label in range(classes)},
    )


def _pixart(seed, changes):
    return diffusers.PixArtAlphaPipeline(
        tokenizer=t5_tokenizer(),
        text_encoder=t5(24),
        vae=vae(),
        transformer=tiny_model("PixArtTransformer2DModel", seed, **changes),
        scheduler=diffusers.DPMSolverMultistepScheduler(),
    )


def _sd3(seed, changes):
    return diffusers.StableDiffusion3Pipeline(
        transformer=tiny_model("SD3Transformer2DModel", seed, **changes),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=vae(scaling_factor=1.5305, shift_factor=0.0609, use_quant_conv=False),
        text_encoder=clip(8, projection=8),
        tokenizer=clip_tokenizer(),
        text_encoder_2=clip(12, projection=12),
        tokenizer_2=clip_tokenizer(),
        text_encoder_3=t5(24),
        tokenizer_3=t5_tokenizer(),
    )


def _flux(seed, changes):
    return diffusers.FluxPipeline(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=vae(scaling_factor=0.3611, shift_factor=0.1159, use_quant_conv=False),
        text_encoder=clip(20),
        tokenizer=clip_tokenizer(),
        text_encoder_2=t5(24),
        tokenizer_2=t5_tokenizer(),
        transformer=tiny_model("FluxTransformer2DModel", seed, **changes),
    )


PIPELINES = {
    "UNet2DModel": _ddpm,
    "UNet2DConditionModel": _stable_diffusion,
    "SDXL": _sdxl,
    "DiTTransformer2DModel": _dit,
    "PixArtTransformer2DModel": _pixart,
    "SD3Transformer2DModel": _sd3,
    "FluxTransformer2DModel": _flux,
}


def vae(use_quant_conv: bool = True, **changes) -> AutoencoderKL:
    """Latents of 4 channels, half as high and wide as the images."""
    return AutoencoderKL(
        block_out_channels=(4, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=8 * VAE_FACTOR,
        use_quant_conv=use_quant_conv,
        use_post_quant_conv=use_quant_conv,
        **changes,
    )


def clip(width: int, projection: int | None = None):
    """A text encoder of CLIP; with a projection where one is asked for."""
    tokenizer = clip_tokenizer()
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=tokenizer.model_max_length,
        projection_dim=projection or width,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return (CLIPTextModel if projection is None else CLIPTextModelWithProjection)(config).eval()


def clip_tokenizer() -> CLIPTokenizer:
    """One token a letter."""
    pieces = ["<|startoftext|>", "<|endoftext|>", *LETTERS, *(f"{x}</w>" for x in LETTERS)]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    return CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=77)


def t5(width: int) -> T5EncoderModel:
    config = T5Config(
        vocab_size=len(t5_tokenizer()), d_model=width, d_kv=8, d_ff=2 * width, num_layers=1,
        num_heads=2, decoder_start_token_id=0,
    )  # fmt: skip
    return T5EncoderModel(config).eval()


def t5_tokenizer() -> T5Tokenizer:
    """One token a letter."""
    specials = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    letters = [(letter, -3.0) for letter in LETTERS]
    return T5Tokenizer(vocab=specials + letters, extra_ids=0, model_max_length=512)


def sample(folder: Path, steps: int = 2):
    """One image (height, width, 3) in [0, 1] of the stock diffusers pipeline of this folder."""
    pipeline = diffusers.DiffusionPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    arguments = {"num_inference_steps": steps, "output_type": "np"}
    if isinstance(pipeline, diffusers.DiTPipeline):
        # Its guidance knows no other number of classes than 1000.
        arguments |= {"class_labels": [3], "guidance_scale": 1.0}
    elif not isinstance(pipeline, DDPMPipeline):
        arguments |= {"prompt": "a red cat", "height": 8 * VAE_FACTOR, "width": 8 * VAE_FACTOR}
    if isinstance(pipeline, diffusers.PixArtAlphaPipeline):
        arguments["use_resolution_binning"] = False
    return pipeline(**arguments).images[0]
