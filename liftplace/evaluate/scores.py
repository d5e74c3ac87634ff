"""Frechet distance and kernel (inception) distance of two sets of features; inception score.

The distances are biased or noisy at small N: give the same N to every model, and print that
between two sets of real images of that N (the real / real floor) beside the score. Precision and
recall are in `liftplace.evaluate.manifold`, intervals in `liftplace.evaluate.intervals`.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

# With fewer images the bias of the covariance of all 1,280 features hides what is measured: two
# real sets of 1,000 are 316 apart on all of them, 36 on 64 (Fashion-MNIST).
FEW_IMAGES = 2000
COMPONENTS_FOR_FEW_IMAGES = 64
CHUNK_ENTRIES = 2**24  # values of a kernel held at a time: 128 MB in float64


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
    num_images, num_components = len(real), sensible_components(*real.shape)
    return Scores(
        fd_lite0=frechet_distance(real, generated, num_components=num_components),
        kid=kernel_distance(real, generated),
        num_images=num_images,
        num_components=num_components,
    )


def sensible_components(num_images: int, num_features: int) -> int:
    """How many principal components a Frechet distance between this many images can use."""
    if num_images > FEW_IMAGES:
        return num_features
    return min(COMPONENTS_FOR_FEW_IMAGES, num_images - 1, num_features)


def few_images_note(num_images: int, num_features: int, *, all_features: bool) -> str | None:
    """One line where so few samples do not determine a Frechet distance; None where they do.

    The covariance of N images has a rank of N - 1 at most, and intervals are made of random halves:
    twice as many images as components, and two, give every one of them a full rank.

    Args:
        num_images: of the samples, and as many real ones.
        num_features: of an image.
        all_features: whether all of them enter whatever N is, as FID's do.
    """
    components = num_features
    if num_images <= FEW_IMAGES and not all_features:
        components = min(COMPONENTS_FOR_FEW_IMAGES, num_features)
    enough = 2 * (components + 1)
    if num_images >= enough:
        return None
    return (
        f"{num_images:,} samples are too few for the {components:,} components of the Frechet "
        f"distance, which is then biased upwards: {enough:,} would do. Compare it with scores of "
        "as many images only, or take kid"
    )


@dataclass(frozen=True)
class Moments:
    """Of a set of features, on its device."""

    mean: Tensor  # (features,), float64
    covariance: Tensor  # (features, features), float64, of N - 1 degrees of freedom

    @classmethod
    def of(cls, features: Tensor) -> "Moments":
        features = features.double()
        return cls(features.mean(0), torch.atleast_2d(torch.cov(features.T)))

    def to(self, device: torch.device | str) -> "Moments":
        return Moments(self.mean.to(device), self.covariance.to(device))

    def project(self, axes: Tensor) -> "Moments":
        """Those of the features times axes (features, axes)."""
        return Moments(self.mean @ axes, axes.T @ self.covariance @ axes)


def principal_axes(real: Tensor | Moments, num_components: int) -> Tensor:
    """(features, num_components), float64: the leading eigenvectors of the covariance."""
    moments = real if isinstance(real, Moments) else Moments.of(real)
    _, axes = torch.linalg.eigh(moments.covariance)  # ascending
    return axes[:, -num_components:]


def frechet_distance(
    real: Tensor | Moments, generated: Tensor, *, num_components: int | None = None
) -> float:
    """Frechet distance between the Gaussians fitted to two sets of features, in float64.

        |m1 - m2|^2 + trace(C1 + C2 - 2 (C1 C2)^(1/2))

    Args:
        real: (N, features), or their moments.
        generated: (M, features).
        num_components: project both on this many leading principal components of ``real``
            first; ``None`` keeps all features.

    Source: Dowson and Landau, 1982; Heusel et al., NeurIPS 2017, equation 6.
    """
    real = real if isinstance(real, Moments) else Moments.of(real)
    generated = Moments.of(generated)
    if num_components is not None and num_components < len(generated.mean):
        leading = principal_axes(real, num_components)
        real, generated = real.project(leading), generated.project(leading)
    values, axes = torch.linalg.eigh(real.covariance)
    root = axes * values.clamp_min(0).sqrt() @ axes.T
    # C1 C2 has the eigenvalues of the symmetric root(C1) C2 root(C1).
    product = torch.linalg.eigvalsh(root @ generated.covariance @ root)
    trace_of_root = product.clamp_min(0).sqrt().sum()
    shift = (real.mean - generated.mean).square().sum()
    traces = real.covariance.trace() + generated.covariance.trace()
    return (shift + traces - 2 * trace_of_root).item()


def kernel_distance(
    real: Tensor, generated: Tensor, *, chunk_entries: int = CHUNK_ENTRIES
) -> float:
    """Unbiased squared maximum mean discrepancy under the kernel (x.y / features + 1)^3.

    Over all N images at once, so that no subsets need to be drawn.

    Args:
        real: (N, features), N >= 2.
        generated: (M, features), M >= 2.
        chunk_entries: kernel values held at a time; the result does not depend on it.

    Source: Binkowski et al., ICLR 2018, section 4 (KID).
    """
    real, generated = real.double(), generated.double()

    def sum_of_kernel(x: Tensor, y: Tensor) -> Tensor:
        rows = max(1, chunk_entries // len(y))
        return sum(((some @ y.T / x.shape[1] + 1) ** 3).sum() for some in x.split(rows))

    def mean_of_pairs(x: Tensor) -> Tensor:
        with_itself = ((x.square().sum(1) / x.shape[1] + 1) ** 3).sum()
        return (sum_of_kernel(x, x) - with_itself) / (len(x) * (len(x) - 1))

    cross = sum_of_kernel(real, generated) / (len(real) * len(generated))
    return (mean_of_pairs(real) + mean_of_pairs(generated) - 2 * cross).item()


def inception_score(logits: Tensor) -> float:
    """exp of the mean KL divergence of p(y | x) from p(y); in [1, classes], higher is better.

    Over all N images at once: the mean of ten splits, as often reported, is lower. On another
    network than Inception it is no inception score: name the network.

    Args:
        logits: (N, classes) of the generated images.

    Source: Salimans et al., NeurIPS 2016, section 4.
    """
    log_probabilities = logits.double().log_softmax(1)  # log p(y | x)
    probabilities = log_probabilities.exp()
    log_marginal = log_probabilities.logsumexp(0) - math.log(len(logits))  # log p(y)
    divergence = (probabilities * (log_probabilities - log_marginal)).sum(1)
    return divergence.mean().exp().item()
