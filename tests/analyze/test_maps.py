from copy import deepcopy

import pytest
import torch
from PIL import Image

from liftplace import linear_fit
from liftplace.analyze.maps import compute_maps, save_maps
from liftplace.students.shrink import shrink
from liftplace.train.models import predict
from liftplace.train.process import NoiseProcess
from tests.train.tiny import tiny_unet

TIMESTEPS = (10, 500, 990)


@pytest.fixture(scope="module")
def teacher():
    return tiny_unet(in_channels=3, out_channels=3).eval()


@pytest.fixture(scope="module")
def images():
    return torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.fixture(params=["epsilon", "flow"])
def process(request):
    return NoiseProcess.new(request.param)


def test_maps_are_the_errors_and_groups_of_the_models_outputs(teacher, images, process):
    student = shrink(teacher.config, (4, 4), seed=2).eval()
    maps = compute_maps(
        student, teacher, process, images, timesteps=TIMESTEPS, group_size=10, seed=3
    )
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(3))
    batch = process.noise_images(images, torch.full((4,), 500), noise)
    with torch.no_grad():
        ours = predict(student, batch.noisy, batch.timesteps)
        theirs = predict(teacher, batch.noisy, batch.timesteps)
    error, group = (theirs - ours).square(), linear_fit(ours, theirs, group_size=10).group
    torch.testing.assert_close(maps.noisy[1], batch.noisy[0])
    torch.testing.assert_close(maps.error[1], error[0].mean(0))
    torch.testing.assert_close(maps.mean_error[1], error.mean((0, 1)))
    torch.testing.assert_close(maps.group[1], group[0].float().mean(0))
    torch.testing.assert_close(maps.mean_group[1], group.float().mean((0, 1)))
    assert maps.timesteps == TIMESTEPS and maps.num_groups == 7 and maps.num_images == 4
    assert ((maps.explained >= 0) & (maps.explained < 1)).all()


def test_a_student_that_is_linear_in_the_teacher_is_explained_wholly(teacher, images, process):
    student = deepcopy(teacher)
    with torch.no_grad():
        student.conv_out.weight.mul_(0.5)
        student.conv_out.bias.mul_(0.5).add_(0.3)
    maps = compute_maps(student, teacher, process, images, timesteps=TIMESTEPS)
    torch.testing.assert_close(maps.explained, torch.ones(3), rtol=0, atol=1e-4)


def test_picture_has_a_column_for_each_timestep(teacher, images, process, tmp_path):
    student = shrink(teacher.config, (4, 4), seed=2).eval()
    widths = []
    for timesteps in (TIMESTEPS, TIMESTEPS[:1]):
        maps = compute_maps(student, teacher, process, images, timesteps=timesteps)
        save_maps(maps, tmp_path / "maps.png")
        picture = Image.open(tmp_path / "maps.png")
        widths.append(picture.width)
        assert len(picture.getcolors(maxcolors=1 << 20)) > 100
    assert widths[0] > widths[1]


def test_a_student_equal_to_its_teacher_can_be_drawn(teacher, images, process, tmp_path):
    maps = compute_maps(teacher, teacher, process, images, timesteps=TIMESTEPS)
    assert maps.error.max() == 0 and maps.explained.isnan().all()
    save_maps(maps, tmp_path / "maps.png")
    assert (tmp_path / "maps.png").is_file()
