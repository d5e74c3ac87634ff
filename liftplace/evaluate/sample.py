"""`liftplace sample`: a grid of samples of a saved model."""

from dataclasses import dataclass
from pathlib import Path

from liftplace.common.errors import NonFiniteError, UsageError
from liftplace.common.settings import at_least, check_types
from liftplace.data.size import check_image_size, image_size


@dataclass(frozen=True, kw_only=True)
class SampleConfig:
    """Sample images from a saved model into one PNG."""

    model: str = ""
    """Folder of the model, or its name on the Hugging Face Hub."""
    revision: str | None = None
    """Branch, tag or commit of a model on the Hub."""
    variant: str | None = None
    """Variant of its weights, such as fp16; by default the plain ones, or the only one."""
    output: str = "grid.png"
    """The PNG, which must not exist yet."""
    num_samples: int = 64
    num_inference_steps: int = 25
    """Of DDIM, in flow matching of Euler, spaced and clipped as the model's scheduler says."""
    seed: int = 0
    batch_size: int | None = None
    """Images at a time, which do not depend on it; by default as many as have the pixels of one of
    1024 x 1024, at most 64."""
    resolution: int | None = None
    """Height and width of the images; by default those that the model works at."""
    height: int | None = None
    width: int | None = None
    """Of images that are no squares, instead of --resolution."""
    class_labels: tuple[int, ...] | None = None
    """Classes of the samples, in turn; by default all of the model's."""
    prompts: tuple[str, ...] | None = None
    """Captions of the samples, in turn; for models that take text."""
    guidance_scale: float = 1.0
    """Classifier-free guidance; 1 is none."""

    def __post_init__(self) -> None:
        check_types(self)
        at_least(1, self, "num_samples", "num_inference_steps", "batch_size")
        check_image_size(self)

    def check_complete(self) -> None:
        """Raises UsageError if there is no model, or the picture cannot be written."""
        if not self.model:
            raise UsageError("--model is missing: name the folder of a model")
        output = Path(self.output)
        if output.exists():
            raise UsageError(f"--output {output} exists: name a new file")
        if not output.parent.is_dir():
            raise UsageError(f"--output {output}: there is no folder {output.parent}")
        from PIL import Image

        suffix = output.suffix.lower()
        if Image.registered_extensions().get(suffix) not in Image.SAVE:
            raise UsageError(f"--output {output}: no picture ends in {suffix!r}: give a .png")


def sample(config: SampleConfig) -> None:
    """Write the grid.

    Raises:
        UsageError: no such model, or conditions that it does not take.
        NonFiniteError: samples that are not finite.
    """
    from liftplace.data.encoder import Encoder
    from liftplace.evaluate.sampling import Sampler, sampling_options
    from liftplace.models.loading import load_model
    from liftplace.plots.images import save_grid

    loaded = load_model(config.model, config.revision, config.variant)
    sampler = Sampler(loaded.process(), Encoder(loaded, image_size(config)))
    images = sampler.sample(
        loaded.model.eval(),
        num_samples=config.num_samples,
        seed=config.seed,
        **sampling_options(config),
    )
    if not images.isfinite().all():
        raise NonFiniteError(
            f"{config.model} makes samples with NaN or infinity in them: nothing was written"
        )
    given = {"class_labels": config.class_labels, "prompts": config.prompts}
    save_grid(images, config.output, labels=sampler.labels(len(images), **given))
    print(f"{config.output}: {config.num_samples} samples of {config.model}")
