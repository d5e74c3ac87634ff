from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from liftplace import linear_fit
from liftplace.analyze.maps import compute_maps, save_maps
from liftplace.models.loading import predict
from liftplace.models.noise import NoiseProcess
from liftplace.models.shrink import shrink
from tests.families.tiny import tiny_model
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
    assert maps.timesteps[1] == batch.timesteps[0]  # as the models are told it
    assert maps.num_groups == 7 and maps.num_images == 4
    assert ((maps.explained >= 0) & (maps.explained < 1)).all()


def test_a_student_that_is_linear_in_the_teacher_is_explained_wholly(teacher, images, process):
    student = deepcopy(teacher)
    with torch.no_grad():
        student.conv_out.weight.mul_(0.5)
        student.conv_out.bias.mul_(0.5).add_(0.3)
    maps = compute_maps(student, teacher, process, images, timesteps=TIMESTEPS)
    torch.testing.assert_close(maps.explained, torch.ones(3).double(), rtol=0, atol=1e-4)


@pytest.mark.parametrize("scope, axes", [("channel", (2, 3)), ("sample", (1, 2, 3))])
def test_explained_is_the_share_that_the_residuals_of_numpys_fits_leave(
    teacher, images, process, scope, axes
):
    student = shrink(teacher.config, (4, 4), seed=2).eval()
    options = {"timesteps": TIMESTEPS, "seed": 3, "scope": scope}
    maps = compute_maps(student, teacher, process, images, **options)
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(3))
    batch = process.noise_images(images, torch.full((4,), 500), noise)
    with torch.no_grad():
        rows = [
            predict(model, batch.noisy, batch.timesteps).flatten(1 if scope == "sample" else 2)
            for model in (student, teacher)
        ]
    s, t = (x.reshape(-1, x.shape[-1]).double().numpy() for x in rows)
    left = sum(np.polyfit(a, b, 1, full=True)[1].item() for a, b in zip(s, t, strict=True))
    assert maps.explained[1].item() == pytest.approx(1 - left / ((t - s) ** 2).sum(), rel=1e-4)


def test_maps_do_not_depend_on_the_batch_size(teacher, images, process):
    student = shrink(teacher.config, (4, 4), seed=2).eval()
    whole, parts = (
        compute_maps(student, teacher, process, images, timesteps=TIMESTEPS, batch_size=size)
        for size in (4, 3)
    )
    for name in ("noisy", "error", "mean_error", "explained"):
        torch.testing.assert_close(
            getattr(parts, name).float(), getattr(whole, name).float(), rtol=1e-3, atol=1e-5
        )


def test_latents_are_shown_decoded_or_by_three_channels():
    models = [tiny_model("DiTTransformer2DModel", seed).eval() for seed in (0, 1)]
    latents, process = torch.randn(2, 4, 8, 8), NoiseProcess.new("epsilon")
    given = (*models, process, latents, {"class_labels": torch.tensor([1, 2])})
    maps = compute_maps(*given, timesteps=(10, 900))
    assert maps.noisy.shape == (2, 3, 8, 8) and "channels 1 to 3" in maps.noisy_label
    assert maps.error.shape == (2, 8, 8)  # without the variance that DiT learns

    def decode(x):
        return x[:, :1].repeat_interleave(2, 2).repeat_interleave(2, 3)

    decoded = compute_maps(*given, timesteps=(10, 900), decode=decode)
    assert decoded.noisy.shape == (2, 1, 16, 16) and "decoded" in decoded.noisy_label
    other = compute_maps(*given[:4], {"class_labels": torch.tensor([3, 2])}, timesteps=(10, 900))
    assert not torch.allclose(other.error, maps.error)


def test_maps_beside_others_share_their_scale(teacher, images, tmp_path):
    student = shrink(teacher.config, (4, 4), seed=2).eval()
    maps = compute_maps(student, teacher, NoiseProcess.new("epsilon"), images, timesteps=TIMESTEPS)
    larger = replace(maps, error=100 * maps.error)
    save_maps(maps, tmp_path / "alone.png")
    save_maps(maps, tmp_path / "itself.png", [maps])
    save_maps(maps, tmp_path / "beside.png", [larger])
    alone, itself, beside = (
        (tmp_path / f"{name}.png").read_bytes() for name in ("alone", "itself", "beside")
    )
    assert alone == itself != beside


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
