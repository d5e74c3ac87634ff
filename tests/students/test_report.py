import pytest
import torch

from liftplace.common.errors import UsageError
from liftplace.models.costs import count_parameters
from liftplace.students.report import check_trains, compare
from tests.families.tiny import TINY, tiny_model


def test_table():
    teacher, student = (tiny_model("DiTTransformer2DModel", num_layers=n) for n in (4, 1))
    lines = compare(student, teacher).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert lines[0].split() == ["teacher", "student", "share"]
    assert lines[1].split()[0] == "parameters" and lines[2].split()[0] == "MACs"
    theirs, ours = count_parameters(teacher), count_parameters(student)
    assert lines[1].split()[1:] == [f"{theirs:,}", f"{ours:,}", f"{ours / theirs:.1%}"]


def test_table_says_which_norm_groups_were_chosen():
    teacher = tiny_model("UNet2DModel")
    student = tiny_model("UNet2DModel", block_out_channels=(8, 16), norm_num_groups=2)
    last = compare(student, teacher).splitlines()[-1]
    assert last == "norm groups 8 -> 2, at least 2 -> 4 channels a group"


@pytest.mark.parametrize("name", sorted(TINY))
def test_every_family_trains(name):
    model = tiny_model(name)
    check_trains(model)
    assert all(weight.grad is None for weight in model.parameters())


def test_what_is_not_finite_is_refused():
    model = tiny_model("UNet2DModel")
    model.conv_in.weight.data[0, 0, 0, 0] = torch.inf
    with pytest.raises(UsageError, match="forward and backward are not finite"):
        check_trains(model)
