"""Where a student differs from its teacher: error maps and group maps over timesteps."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from torch import Tensor, nn

from liftplace import linear_fit
from liftplace.evaluate.pictures import new_figure, to_pixels
from liftplace.train.models import predict
from liftplace.train.process import NoiseProcess


@dataclass(frozen=True)
class Maps:
    """Errors and PLACE groups at T timesteps; maps are averages over the channels."""

    timesteps: tuple[int, ...]
    noisy: Tensor  # (T, channels, height, width): the first image, noised
    error: Tensor  # (T, height, width): (teacher - student)^2 on the first image
    group: Tensor  # (T, height, width): its group numbers, 0 for the smallest errors
    mean_error: Tensor  # (T, height, width): over all images
    mean_group: Tensor  # (T, height, width): over all images
    explained: Tensor  # (T,): share of the error that one linear fit a channel removes (LIFT);
    # NaN where there is no error
    num_images: int
    num_groups: int


@torch.no_grad()
def compute_maps(
    student: nn.Module,
    teacher: nn.Module,
    process: NoiseProcess,
    images: Tensor,
    *,
    timesteps: Sequence[int],
    group_size: int = 16,
    seed: int = 0,
) -> Maps:
    """Compares student and teacher on the same noisy images at each timestep.

    Args:
        student, teacher: models of one shape, on one device.
        process: their noise process.
        images: (N, channels, height, width) in [-1, 1]. Every timestep adds the same noise.
        timesteps: numbers of the process's timesteps.
        group_size: elements of a PLACE group, as in ``place_loss``.
        seed: of the noise.

    Returns:
        The maps, on the CPU. Source: arXiv 2605.19729 (error and group maps; the share that a
        linear fit explains is the paper's coarse-easy part).
    """
    device = next(student.parameters()).device
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(seed))
    noisy, errors, groups, explained = [], [], [], []
    for timestep in timesteps:
        number = torch.full((len(images),), timestep)
        batch = process.noise_images(images, number, noise)
        inputs, times = batch.noisy.to(device), batch.timesteps.to(device)
        ours, theirs = predict(student, inputs, times), predict(teacher, inputs, times)
        error = (theirs - ours).square()
        noisy.append(batch.noisy[0])
        errors.append(error.cpu())
        groups.append(linear_fit(ours, theirs, group_size=group_size).group.cpu())
        explained.append(_explained(ours, theirs, error).cpu())
    error = torch.stack(errors).mean(2)  # (T, N, height, width)
    group = torch.stack(groups).float().mean(2)
    return Maps(
        timesteps=tuple(timesteps),
        noisy=torch.stack(noisy),
        error=error[:, 0],
        group=group[:, 0],
        mean_error=error.mean(1),
        mean_group=group.mean(1),
        explained=torch.stack(explained),
        num_images=len(images),
        num_groups=-(-images[0, 0].numel() // group_size),
    )


def save_maps(maps: Maps, path: str | Path) -> None:
    """Writes the maps as one PNG: a column for each timestep."""
    columns = len(maps.timesteps)
    cell, left, right, top = 0.95, 1.75, 0.85, 0.5  # inches
    width, height = left + columns * cell + right, top + 5 * cell + 0.1
    figure = new_figure(width, height)
    grid = figure.subplots(
        5,
        columns,
        squeeze=False,
        gridspec_kw={
            "left": left / width,
            "right": 1 - right / width,
            "top": 1 - top / height,
            "bottom": 0.1 / height,
            "wspace": 0.06,
            "hspace": 0.06,
        },
    )
    for axes in grid.flat:
        axes.set(xticks=[], yticks=[])
    for column, timestep in enumerate(maps.timesteps):
        share = maps.explained[column].item()
        percent = "-" if math.isnan(share) else f"{100 * share:.0f} %"
        grid[0, column].set_title(f"t = {timestep}\n{percent}", fontsize=9)
        grid[0, column].imshow(to_pixels(maps.noisy[column, None])[0])
    images = f"mean of {maps.num_images} images"
    rows = ["noisy image", "error (t - s)²", "PLACE group", f"error (t - s)²\n{images}"]
    rows.append(f"PLACE group\n{images}")
    for axes, label in zip(grid[:, 0], rows, strict=True):
        axes.set_ylabel(label, rotation=0, ha="right", va="center", fontsize=9)
    note = "timestep\nlinear fit explains"
    figure.text((left - 0.08) / width, 1 - (top - 0.06) / height, note, fontsize=9, ha="right")
    _draw(figure, grid[1], maps.error, "inferno", "squared error", log=True)
    _draw(figure, grid[3], maps.mean_error, "inferno", "squared error", log=True)
    _draw(figure, grid[2], maps.group, "viridis", "group", largest=maps.num_groups - 1)
    _draw(figure, grid[4], maps.mean_group, "viridis", "group")
    figure.savefig(path, dpi=130)


def _explained(student: Tensor, teacher: Tensor, error: Tensor) -> Tensor:
    fit = linear_fit(student, teacher)  # slope and intercept (rows, 1)
    s, t = student.flatten(2).flatten(0, 1), teacher.flatten(2).flatten(0, 1)  # (rows, elements)
    residual = (fit.intercept + fit.slope * s - t).square().sum()
    total = error.sum()
    return torch.where(total > 0, 1 - residual / total, torch.nan)


def _draw(
    figure: Figure, row, values: Tensor, colours: str, label: str, *, log=False, largest=None
) -> None:
    """Draws one row of maps on one scale, with its colour bar at the right."""
    low, high = values.min().item(), values.max().item()
    scale = {"vmin": 0 if largest else low, "vmax": largest or high}
    if log and high > 0:
        # The very smallest errors are accidents: four decades below the largest are enough.
        scale = {"norm": LogNorm(max(low, high * 1e-4), high, clip=True)}
    for axes, image in zip(row, values.numpy(), strict=True):
        drawn = axes.imshow(image, cmap=colours, **scale)
    box = row[-1].get_position()
    bar = figure.add_axes((box.x1 + 0.012, box.y0, 0.014, box.height))
    figure.colorbar(drawn, cax=bar).set_label(label, fontsize=8)
    bar.tick_params(labelsize=7)
