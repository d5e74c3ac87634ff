import pytest
import torch

from liftplace.evaluate.agreement import agreement


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
