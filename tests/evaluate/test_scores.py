import math

import pytest
import scipy.stats
import torch
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance

from liftplace.evaluate.scores import (
    few_images_note,
    frechet_distance,
    inception_score,
    kernel_distance,
    score,
)


class FlatPixels(torch.nn.Module):
    """Hands torchmetrics our features: an image (1, 1, D) is its own feature vector."""

    num_features = 32

    def forward(self, images):
        return images.flatten(1)


def gaussian(count, mean, deviation, seed):
    generator = torch.Generator().manual_seed(seed)
    return mean + deviation * torch.randn(count, 32, generator=generator, dtype=torch.float64)


def with_exact_moments(features, mean, deviation):
    """Shifts and whitens, so that the sample has exactly this mean and diagonal covariance."""
    centred = features - features.mean(0)
    factor = torch.linalg.cholesky(torch.cov(centred.T))
    return torch.linalg.solve_triangular(factor, centred.T, upper=False).T * deviation + mean


def test_frechet_distance_of_diagonal_gaussians_is_the_closed_form():
    deviations = torch.linspace(0.5, 2, 32, dtype=torch.float64)
    first = with_exact_moments(gaussian(300, 0, 1, 0), 1.0, deviations)
    second = with_exact_moments(gaussian(200, 0, 1, 1), -0.5, deviations.flip(0))
    expected = 32 * 1.5**2 + (deviations - deviations.flip(0)).square().sum()
    assert frechet_distance(first, second) == pytest.approx(expected.item(), rel=1e-9)
    assert frechet_distance(first, first) == pytest.approx(0, abs=1e-9)


def test_components_are_the_leading_ones_of_the_real_features():
    deviations = torch.linspace(4, 1, 32, dtype=torch.float64)
    real = with_exact_moments(gaussian(300, 0, 1, 2), 0.0, deviations)
    other = with_exact_moments(gaussian(300, 0, 1, 3), 1.0, 2 * deviations)
    rotation, _ = torch.linalg.qr(gaussian(32, 0, 1, 4))
    expected = 5 + deviations[:5].square().sum()
    measured = frechet_distance(real @ rotation, other @ rotation, num_components=5)
    assert measured == pytest.approx(expected.item(), rel=1e-9)


def test_frechet_distance_with_fewer_images_than_features_is_finite():
    real, other = gaussian(10, 0, 1, 5), gaussian(10, 3, 1, 6)
    assert 32 * 3**2 * 0.5 < frechet_distance(real, other) < 32 * 3**2 * 2


def test_frechet_distance_agrees_with_torchmetrics():
    real, other = gaussian(100, 0, 1, 7), gaussian(80, 0.3, 1.4, 8)
    metric = FrechetInceptionDistance(feature=FlatPixels(), input_img_size=(1, 1, 32))
    metric.set_dtype(torch.float64)
    metric.update(real[:, None, None], real=True)
    metric.update(other[:, None, None], real=False)
    assert frechet_distance(real, other) == pytest.approx(metric.compute().item(), rel=1e-6)


@pytest.mark.filterwarnings("ignore:Metric `Kernel Inception Distance`:UserWarning")
def test_kernel_distance_agrees_with_torchmetrics():
    real, other = gaussian(100, 0, 1, 9), gaussian(100, 0.3, 1.4, 10)
    # One subset of all images: torchmetrics then draws nothing but their order.
    metric = KernelInceptionDistance(feature=FlatPixels(), subsets=1, subset_size=100)
    metric.update(real[:, None, None], real=True)
    metric.update(other[:, None, None], real=False)
    mean, _ = metric.compute()
    assert kernel_distance(real, other) == pytest.approx(mean.item(), rel=1e-5)


def test_kernel_distance_by_hand():
    # One feature, x = (0, 1), y = (1, 2): kernel (x y + 1)^3.
    real, other = torch.tensor([[0.0], [1.0]]), torch.tensor([[1.0], [2.0]])
    expected = 1 + 27 - 2 * (1 + 1 + 8 + 27) / 4
    assert kernel_distance(real, other) == pytest.approx(expected)


def test_kernel_distance_is_torch_fidelitys_formula():
    """polynomial_mmd of its metric_kid.py, on one subset of everything, term by term."""
    real, other = gaussian(40, 0, 1, 17), gaussian(40, 0.3, 1.4, 18)

    def kernel(x, y):
        return (x @ y.T * (1 / x.shape[1]) + 1.0) ** 3

    def sum_off_the_diagonal(x):
        return (kernel(x, x).sum(1) - kernel(x, x).diagonal()).sum()

    expected = (sum_off_the_diagonal(real) + sum_off_the_diagonal(other)) / (40 * 39)
    expected -= 2 * kernel(real, other).sum() / 40**2
    assert kernel_distance(real, other) == pytest.approx(expected.item(), rel=1e-9)


def test_kernel_distance_does_not_depend_on_the_chunk():
    real, other = gaussian(50, 0, 1, 19), gaussian(33, 0.3, 1.4, 20)
    whole = kernel_distance(real, other)
    for entries in (1, 120):
        chunked = kernel_distance(real, other, chunk_entries=entries)
        assert chunked == pytest.approx(whole, rel=1e-9)


def test_inception_score_by_hand_and_by_another_library():
    sure = 50 * torch.eye(4).repeat(5, 1)
    assert inception_score(sure) == pytest.approx(4)  # sure, and all classes alike
    assert inception_score(sure[:1].expand(20, -1)) == pytest.approx(1)  # one class
    assert inception_score(torch.zeros(20, 4)) == pytest.approx(1)  # unsure
    logits = gaussian(60, 0, 2, 21)
    probabilities = logits.softmax(1).numpy()
    divergences = scipy.stats.entropy(probabilities, probabilities.mean(0, keepdims=True), axis=1)
    assert inception_score(logits) == pytest.approx(math.exp(divergences.mean()), rel=1e-9)


def test_score_states_its_counts_and_orders_damage():
    real, same = gaussian(200, 0, 1, 11), gaussian(200, 0, 1, 12)
    near, far = gaussian(200, 0.2, 1, 13), gaussian(200, 1, 2, 14)
    scores = [score(real, features) for features in (same, near, far)]
    assert scores[0].num_images == 200 and scores[0].num_components == 32
    assert scores[0].fd_lite0 < scores[1].fd_lite0 < scores[2].fd_lite0
    assert scores[0].kid < scores[1].kid < scores[2].kid


def test_few_images_are_scored_on_64_components():
    generator = torch.Generator().manual_seed(15)
    features = torch.randn(2, 100, 80, generator=generator)
    assert score(*features).num_components == 64
    assert score(*features[:, :20]).num_components == 19
    many = torch.randn(2, 2001, 80, generator=generator)
    assert score(*many).num_components == 80


def test_non_finite_features_give_no_quiet_number():
    real = gaussian(50, 0, 1, 16)
    broken = real.clone()
    broken[0, 0] = math.nan
    assert math.isnan(kernel_distance(real, broken))


@pytest.mark.parametrize("shapes", [((5, 3), (4, 3)), ((5, 3), (5, 2)), ((1, 3), (1, 3))])
def test_unequal_sets_are_refused(shapes):
    with pytest.raises(ValueError, match="one shape"):
        score(*(torch.zeros(shape) for shape in shapes))


@pytest.mark.parametrize(
    "num_images, num_features, all_features, enough",
    [
        (129, 1280, False, "130"),
        (130, 1280, False, None),
        (2000, 1280, False, None),
        (2001, 1280, False, "2,562"),
        (2562, 1280, False, None),
        (1000, 2048, True, "4,098"),
        (50_000, 2048, True, None),
        (9, 4, False, "10"),
    ],
)
def test_too_few_images_for_the_components_name_the_number_that_would_do(
    num_images, num_features, all_features, enough
):
    note = few_images_note(num_images, num_features, all_features=all_features)
    if enough is None:
        assert note is None
        return
    assert f"{enough} would do" in note
    # Half of what would do has a covariance of full rank, half of one less has not.
    half, components = int(enough.replace(",", "")) // 2, int(enough.replace(",", "")) // 2 - 1
    features = torch.randn(half, components, generator=torch.Generator().manual_seed(0))
    if components <= 64:
        assert torch.linalg.matrix_rank(torch.cov(features.double().T)) == components
        assert torch.linalg.matrix_rank(torch.cov(features[1:].double().T)) < components
