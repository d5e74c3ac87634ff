"""How closely a student follows its teacher, image by image."""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Agreement:
    """Root-mean-square pixel differences of images in [-1, 1]; lower is better."""

    pixel_error: float  # between the two models' samples from the same noise
    unrelated: float  # between the teacher's own samples from different noise, for scale


def agreement(student_images: Tensor, teacher_images: Tensor) -> Agreement:
    """Compares samples that a student and its teacher made from the same noise.

    Args:
        student_images: (N, channels, height, width) in [-1, 1], N >= 2, from a deterministic
            scheduler.
        teacher_images: of the same shape, from the same seed.

    Raises:
        ValueError: shapes differ, or N < 2.
    """
    if student_images.shape != teacher_images.shape or len(student_images) < 2:
        raise ValueError(
            "student_images and teacher_images must have one shape (N, channels, height, width) "
            f"with N >= 2, got {tuple(student_images.shape)} and {tuple(teacher_images.shape)}"
        )
    return Agreement(
        pixel_error=_root_mean_square(student_images - teacher_images),
        unrelated=_root_mean_square(teacher_images.roll(1, 0) - teacher_images),
    )


def _root_mean_square(difference: Tensor) -> float:
    return difference.double().square().mean().sqrt().item()


def pair_differences(
    student_images: Tensor,
    teacher_images: Tensor,
    student_features: Tensor,
    teacher_features: Tensor,
) -> dict[str, Tensor]:
    """The mean square differences of every pair, so that their mean's root can be resampled.

    Args:
        student_images, teacher_images: of `agreement`.
        student_features, teacher_features: (N, features) of these images. They are compared at
            unit length, as Zhang et al. (LPIPS), arXiv 1801.03924, equation 1, do at every
            position; here it is one vector an image, so the distance is in [0, 2].

    Returns:
        ``pixel``, ``feature``, and ``unrelated_pixel``, ``unrelated_feature`` between the teacher's
        own images from different noise: (N,) each.
    """
    student = F.normalize(student_features.double(), dim=1)
    teacher = F.normalize(teacher_features.double(), dim=1)
    squares = {
        "pixel": (student_images - teacher_images).square().flatten(1).mean(1),
        "feature": (student - teacher).square().sum(1),
        "unrelated_pixel": (teacher_images.roll(1, 0) - teacher_images).square().flatten(1).mean(1),
        "unrelated_feature": (teacher.roll(1, 0) - teacher).square().sum(1),
    }
    return {name: values.double() for name, values in squares.items()}
