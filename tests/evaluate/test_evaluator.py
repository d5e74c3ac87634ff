import numpy as np
import pytest
import scipy.linalg
import torch

from liftplace.evaluate.evaluator import Evaluator
from liftplace.evaluate.manifold import precision_recall
from liftplace.evaluate.scores import Moments, inception_score, score


class Features(torch.nn.Linear):
    name, distance = "Own", "FD-Own"

    def logits(self, features):
        return self(features)


def normal(seed, mean=0.0, count=60):
    generator = torch.Generator().manual_seed(seed)
    return mean + torch.randn(count, 80, generator=generator)


@pytest.fixture(scope="module")
def evaluator():
    torch.manual_seed(0)
    return Evaluator(Features(80, 5), normal(0), normal(1), draws=20)


def test_every_score_is_that_of_its_function(evaluator):
    generated = normal(2, 0.3)
    rows = evaluator.scores(["recall", "fd", "kid", "is", "precision"], generated)
    found = {row.name: row for row in rows}
    assert list(found) == ["recall", "FD-Own", "KID-Own", "IS-Own", "precision"]
    for features, part in ((generated, "value"), (normal(1), "floor")):
        distances, shares = score(normal(0), features), precision_recall(normal(0), features)
        assert getattr(found["FD-Own"], part) == pytest.approx(distances.fd_lite0, rel=1e-9)
        assert getattr(found["KID-Own"], part) == pytest.approx(distances.kid, rel=1e-9)
        assert getattr(found["precision"], part) == shares.precision
        assert getattr(found["recall"], part) == shares.recall
    logits = evaluator.network(generated)
    assert found["IS-Own"].value == pytest.approx(inception_score(logits.detach()))
    assert evaluator.num_components(60) == 59
    for name, row in found.items():
        assert row.low < row.value < row.high, name
        assert row.better == ("lower" if "D-" in name else "higher")


def test_shares_have_intervals_inside_their_range(evaluator):
    far = evaluator.scores(["precision", "recall"], normal(3, 100.0))
    assert [(row.value, row.low, row.high) for row in far] == [(0, 0, 0)] * 2
    near = evaluator.scores(["precision"], normal(0) * 0.1)
    assert near[0].value == 1 and near[0].high == 1


def test_without_other_real_images_there_is_no_floor():
    evaluator = Evaluator(Features(80, 5), normal(0), draws=2)
    assert [row.floor for row in evaluator.scores(["fd", "precision"], normal(1))] == [None, None]


def test_agreement_is_the_root_of_the_mean_with_its_scale(evaluator):
    squares = torch.tensor([0.01, 0.04, 0.09, 0.16, 0.25, 0.36]).repeat(5)
    pairs = {"pixel": squares, "feature": 4 * squares}
    pairs |= {"unrelated_pixel": torch.ones(30), "unrelated_feature": 2 * torch.ones(30)}
    pixel, feature = evaluator.agreement(pairs)
    assert pixel.value == pytest.approx((0.91 / 6) ** 0.5) and pixel.unrelated == 1
    assert feature.value == pytest.approx(2 * pixel.value)
    assert feature.unrelated == pytest.approx(2**0.5)
    assert pixel.low < pixel.value < pixel.high


def test_without_draws_there_are_no_intervals(evaluator):
    metrics, generated = ["fd", "kid", "is", "precision", "recall"], normal(2, 0.3)
    quick = Evaluator(evaluator.network, normal(0), normal(1), draws=0).scores(metrics, generated)
    assert [(row.low, row.high) for row in quick] == [(None, None)] * 5
    for row, slow in zip(quick, evaluator.scores(metrics, generated), strict=True):
        assert (row.name, row.value, row.better, row.floor) == (
            slow.name,
            slow.value,
            slow.better,
            slow.floor,
        )


class Inception(Features):
    name, distance = "Inception", "FID"


def test_fid_uses_all_features_however_few_images():
    """Against pytorch-fid's and torch-fidelity's formula, with scipy's matrix square root."""
    evaluator = Evaluator(Inception(80, 5), normal(0, count=70), normal(1, count=70), draws=0)
    generated = normal(2, 0.3, count=70)
    (row,) = evaluator.scores(["fd"], generated)
    assert row.name == "FID" and evaluator.num_components(70) == 80
    for features, value in ((generated, row.value), (normal(1, count=70), row.floor)):
        expected = fid(normal(0, count=70).double().numpy(), features.double().numpy())
        assert value == pytest.approx(expected, rel=1e-4)  # sqrtm of singular matrices is rough
    names = [row.name for row in evaluator.scores(["kid", "is"], generated)]
    assert names == ["KID", "IS"]


def fid(real, generated):
    covariances = [np.cov(features, rowvar=False) for features in (real, generated)]
    root = scipy.linalg.sqrtm(covariances[0] @ covariances[1]).real
    shift = real.mean(0) - generated.mean(0)
    return shift @ shift + np.trace(covariances[0] + covariances[1] - 2 * root)


@pytest.mark.parametrize("network", [Features(80, 5), Inception(80, 5)])
def test_moments_score_as_their_features_do(network):
    generated = normal(2, 0.3)
    (whole,) = Evaluator(network, normal(0), draws=0).scores(["fd"], generated)
    (row,) = Evaluator(network, Moments.of(normal(0)), draws=2).scores(["fd"], generated)
    assert row.value == pytest.approx(whole.value, rel=1e-9) and row.floor is None


def test_interval_against_moments_is_of_other_samples():
    def score(seed, draws):
        samples = 0.5 + 1.3 * normal(seed, count=100)[:, :4]
        return Evaluator(Features(4, 5), moments, draws=draws).scores(["fd"], samples)[0]

    moments = Moments.of(normal(0)[:, :4])
    spread = torch.tensor([score(seed, 0).value for seed in range(1, 200)]).std().item()
    intervals = [score(seed, 60) for seed in range(1, 30)]
    widths = torch.tensor([row.high - row.low for row in intervals])
    assert widths.mean().item() == pytest.approx(2 * 1.96 * spread, rel=0.25)


def test_clip_is_the_mean_with_the_textbook_interval(evaluator):
    similarities = 30 + normal(4)[:, 0].double()
    row = evaluator.clip(similarities)
    assert row.name == "CLIP score" and row.better == "higher"
    assert row.value == pytest.approx(similarities.mean().item())
    textbook = 2 * 1.96 * similarities.std().item() / 60**0.5
    assert row.high - row.low == pytest.approx(textbook, rel=0.4)  # 20 draws
