"""The autoencoder of a pipeline of latents."""

from pathlib import Path

from diffusers import AutoencoderKL, VQModel

from liftplace.common.errors import UsageError
from liftplace.data.text import UNREADABLE, one_line
from liftplace.models.weights import variant_to_read

AUTOENCODERS = {"vae": AutoencoderKL, "vqvae": VQModel}  # by what pipelines call them


def load_vae(folder: Path, variant: str | None) -> AutoencoderKL | VQModel | None:
    """The frozen autoencoder of a pipeline's folder; None of one without.

    Raises:
        UsageError: it cannot be loaded, or lacks weights.
    """
    for part, kind in AUTOENCODERS.items():
        if (folder / part).is_dir():
            return _load_autoencoder(folder / part, kind, variant)
    return None


def part_of(vae: AutoencoderKL | VQModel) -> str:
    """What pipelines call it."""
    return next(part for part, kind in AUTOENCODERS.items() if isinstance(vae, kind))


def _load_autoencoder(folder: Path, kind: type, variant: str | None) -> AutoencoderKL | VQModel:
    variant = variant_to_read((path.name for path in folder.iterdir()), variant, folder)
    try:
        vae, keys = kind.from_pretrained(
            folder,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
            variant=variant,
        )
    except UNREADABLE as error:
        raise UsageError(f"cannot load the VAE in {folder}: {one_line(error)}") from error
    if keys["missing_keys"]:
        raise UsageError(f"{folder} is damaged or no {kind.__name__}: it lacks weights")
    return vae.requires_grad_(False).eval()


def latent_scaling(config) -> tuple:
    """Shift and scale of the latents as its config has them; of every channel where it says so."""
    scale = config.scaling_factor
    means, deviations = config.get("latents_mean"), config.get("latents_std")
    if means is None or deviations is None:
        return config.get("shift_factor") or 0.0, scale
    return tuple(means), tuple(scale / deviation for deviation in deviations)
