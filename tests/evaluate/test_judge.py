import pytest
import torch

from liftplace.evaluate.judge import Judge
from liftplace.evaluate.manifold import precision_recall
from liftplace.evaluate.scores import inception_score, score


class Features(torch.nn.Linear):
    name, distance = "Own", "FD-Own"

    def logits(self, features):
        return self(features)


def normal(seed, mean=0.0, count=60):
    generator = torch.Generator().manual_seed(seed)
    return mean + torch.randn(count, 80, generator=generator)


@pytest.fixture(scope="module")
def judge():
    torch.manual_seed(0)
    return Judge(Features(80, 5), normal(0), normal(1), draws=20)


def test_every_score_is_that_of_its_function(judge):
    generated = normal(2, 0.3)
    rows = judge.scores(["recall", "fd", "kid", "is", "precision"], generated)
    found = {row.name: row for row in rows}
    assert list(found) == ["recall", "FD-Own", "KID-Own", "IS-Own", "precision"]
    for features, part in ((generated, "value"), (normal(1), "floor")):
        distances, shares = score(normal(0), features), precision_recall(normal(0), features)
        assert getattr(found["FD-Own"], part) == pytest.approx(distances.fd_lite0, rel=1e-9)
        assert getattr(found["KID-Own"], part) == pytest.approx(distances.kid, rel=1e-9)
        assert getattr(found["precision"], part) == shares.precision
        assert getattr(found["recall"], part) == shares.recall
    logits = judge.network(generated)
    assert found["IS-Own"].value == pytest.approx(inception_score(logits.detach()))
    assert judge.num_components == 59
    for name, row in found.items():
        assert row.low < row.value < row.high, name
        assert row.better == ("lower" if "D-" in name else "higher")


def test_shares_have_intervals_inside_their_range(judge):
    far = judge.scores(["precision", "recall"], normal(3, 100.0))
    assert [(row.value, row.low, row.high) for row in far] == [(0, 0, 0)] * 2
    near = judge.scores(["precision"], normal(0) * 0.1)
    assert near[0].value == 1 and near[0].high == 1


def test_without_other_real_images_there_is_no_floor():
    judge = Judge(Features(80, 5), normal(0), draws=2)
    assert [row.floor for row in judge.scores(["fd", "precision"], normal(1))] == [None, None]


def test_agreement_is_the_root_of_the_mean_with_its_scale(judge):
    squares = torch.tensor([0.01, 0.04, 0.09, 0.16, 0.25, 0.36]).repeat(5)
    pairs = {"pixel": squares, "feature": 4 * squares}
    pairs |= {"unrelated_pixel": torch.ones(30), "unrelated_feature": 2 * torch.ones(30)}
    pixel, feature = judge.agreement(pairs)
    assert pixel.value == pytest.approx((0.91 / 6) ** 0.5) and pixel.unrelated == 1
    assert feature.value == pytest.approx(2 * pixel.value)
    assert feature.unrelated == pytest.approx(2**0.5)
    assert pixel.low < pixel.value < pixel.high
