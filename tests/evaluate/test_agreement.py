import pytest
import torch

from liftplace.evaluate.agreement import agreement, pair_differences


def test_errors_are_root_mean_squares_of_pixels():
    teacher = torch.stack([torch.full((1, 2, 2), value) for value in (-1.0, 1.0)])
    student = teacher + torch.tensor([0.3, -0.4]).reshape(2, 1, 1, 1)
    measured = agreement(student, teacher)
    assert measured.pixel_error == pytest.approx(((0.09 + 0.16) / 2) ** 0.5)
    assert measured.unrelated == pytest.approx(2)
    assert agreement(teacher, teacher).pixel_error == 0


@pytest.mark.parametrize("shapes", [((2, 1, 4, 4), (3, 1, 4, 4)), ((1, 1, 4, 4), (1, 1, 4, 4))])
def test_samples_that_do_not_pair_up_are_refused(shapes):
    with pytest.raises(ValueError, match="one shape"):
        agreement(*(torch.zeros(shape) for shape in shapes))


def test_pairs_have_the_means_of_the_whole():
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.rand(2, 6, 3, 4, 4, generator=generator) * 2 - 1
    features = torch.tensor([[3.0, 4.0]] * 6)  # of one length and direction
    turned = torch.tensor([[-8.0, 6.0]] * 3 + [[6.0, 8.0]] * 3)  # at a right angle; the same
    pairs = pair_differences(student, teacher, turned, features)
    whole = agreement(student, teacher)
    assert pairs["pixel"].shape == (6,)
    assert pairs["pixel"].mean().sqrt().item() == pytest.approx(whole.pixel_error)
    assert pairs["unrelated_pixel"].mean().sqrt().item() == pytest.approx(whole.unrelated)
    expected = [2.0] * 3 + [(6 / 10 - 3 / 5) ** 2] * 3
    assert pairs["feature"].tolist() == pytest.approx(expected, abs=1e-12)
    assert pairs["unrelated_feature"].tolist() == pytest.approx([0] * 6, abs=1e-12)
