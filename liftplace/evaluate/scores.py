"""Distances between two sets of features: Frechet distance and kernel (inception) distance.

Both are biased or noisy at small N: give the same N to every model, and print the distance
between two sets of real images of that N (the real / real floor) beside the score.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

# With fewer images the bias of the covariance of all 1,280 features hides what is measured: two
# real sets of 1,000 are 316 apart on all of them, 36 on 64 (Fashion-MNIST).
FEW_IMAGES = 2000
COMPONENTS_FOR_FEW_IMAGES = 64


@dataclass(frozen=True)
class Scores:
    """Distances of N generated images to N real ones; lower is better."""

    fd_lite0: float  # Frechet distance on EfficientNet-Lite0 features
    kid: float  # kernel distance (squared MMD) on the same features; may be negative
    num_images: int
    num_components: int  # principal components of the real features that fd_lite0 uses


def score(real: Tensor, generated: Tensor) -> Scores:
    """FD-Lite0 and KID between equally many real and generated images.

    Args:
        real: (N, features) of the real images.
        generated: (N, features) of the generated images, by the same network.

    Raises:
        ValueError: shapes differ, or N < 2.
    """
    if real.ndim != 2 or real.shape != generated.shape or len(real) < 2:
        raise ValueError(
            "real and generated must have one shape (N, features) with N >= 2, got "
            f"{tuple(real.shape)} and {tuple(generated.shape)}"
        )
    num_images, num_components = real.shape
    if num_images <= FEW_IMAGES:
        num_components = min(COMPONENTS_FOR_FEW_IMAGES, num_images - 1, num_components)
    return Scores(
        fd_lite0=frechet_distance(real, generated, num_components=num_components),
        kid=kernel_distance(real, generated),
        num_images=num_images,
        num_components=num_components,
    )


def frechet_distance(
    real: Tensor, generated: Tensor, *, num_components: int | None = None
) -> float:
    """Frechet distance between the Gaussians fitted to two sets of features, in float64.

        |m1 - m2|^2 + trace(C1 + C2 - 2 (C1 C2)^(1/2))

    Args:
        real: (N, features).
        generated: (M, features).
        num_components: project both on this many leading principal components of ``real``
            first; ``None`` keeps all features.

    Source: Dowson and Landau, 1982; Heusel et al., NeurIPS 2017, equation 6.
    """
    real, generated = real.double(), generated.double()
    if num_components is not None and num_components < real.shape[1]:
        _, axes = torch.linalg.eigh(torch.cov(real.T))  # ascending
        leading = axes[:, -num_components:]  # (features, num_components)
        real, generated = real @ leading, generated @ leading
    real_covariance, covariance = torch.cov(real.T), torch.cov(generated.T)
    values, axes = torch.linalg.eigh(torch.atleast_2d(real_covariance))
    root = axes * values.clamp_min(0).sqrt() @ axes.T
    # C1 C2 has the eigenvalues of the symmetric root(C1) C2 root(C1).
    product = torch.linalg.eigvalsh(root @ torch.atleast_2d(covariance) @ root)
    trace_of_root = product.clamp_min(0).sqrt().sum()
    shift = (real.mean(0) - generated.mean(0)).square().sum()
    traces = real.var(0).sum() + generated.var(0).sum()
    return (shift + traces - 2 * trace_of_root).item()


def kernel_distance(real: Tensor, generated: Tensor) -> float:
    """Unbiased squared maximum mean discrepancy under the kernel (x.y / features + 1)^3.

    Over all N images at once, so that no subsets need to be drawn.

    Args:
        real: (N, features), N >= 2.
        generated: (M, features), M >= 2.

    Source: Binkowski et al., ICLR 2018, section 4 (KID).
    """
    real, generated = real.double(), generated.double()

    def kernel(x: Tensor, y: Tensor) -> Tensor:
        return (x @ y.T / x.shape[1] + 1) ** 3

    def mean_of_pairs(x: Tensor) -> Tensor:
        similarity = kernel(x, x)
        return (similarity.sum() - similarity.trace()) / (len(x) * (len(x) - 1))

    cross = kernel(real, generated).mean()
    return (mean_of_pairs(real) + mean_of_pairs(generated) - 2 * cross).item()
