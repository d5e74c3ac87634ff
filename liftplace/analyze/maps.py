"""Where a student differs from its teacher: error maps and group maps over timesteps."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from torch import Tensor, nn

from liftplace import linear_fit
from liftplace.analyze.correction import regress
from liftplace.evaluate.sampling import denoise, slice_conditions
from liftplace.families.family import Conditions
from liftplace.models.noise import NoiseProcess
from liftplace.plots.images import new_figure, to_pixels

LATENT_RANGE = 3.0  # latents have a standard deviation of about 1


@dataclass(frozen=True)
class Maps:
    """Errors and PLACE groups at T timesteps; maps are averages over the channels."""

    timesteps: tuple[float, ...]  # as the models take them
    noisy: Tensor  # (T, 1 or 3, pixel height, pixel width), about [-1, 1]: the first image, noised
    error: Tensor  # (T, height, width): (teacher - student)^2 on the first image
    group: Tensor  # (T, height, width): its group numbers, 0 for the smallest errors
    mean_error: Tensor  # (T, height, width): over all images
    mean_group: Tensor  # (T, height, width): over all images
    explained: Tensor  # (T,), float64: share of the error that one linear fit a row removes (LIFT);
    # NaN where there is no error
    num_images: int
    num_groups: int
    noisy_label: str = "noisy image"


@torch.no_grad()
def compute_maps(
    student: nn.Module,
    teacher: nn.Module,
    process: NoiseProcess,
    images: Tensor,
    conditions: Conditions | None = None,
    *,
    timesteps: Sequence[int],
    group_size: int = 16,
    scope: str = "channel",
    batch_size: int = 64,
    seed: int = 0,
    decode: Callable[[Tensor], Tensor] | None = None,
) -> Maps:
    """Compares student and teacher on the same noisy images at each timestep.

    Args:
        student, teacher: models of one shape, on one device, in any type.
        process: their noise process.
        images: (N, channels, height, width): images in [-1, 1], or latents. Every timestep adds
            the same noise.
        conditions: by name, (N, ...).
        timesteps: numbers of the process's timesteps.
        group_size: elements of a PLACE group, as in ``place_loss``.
        scope: a row is a "channel" of an image, or a whole "sample".
        batch_size: images at a time.
        seed: of the noise.
        decode: from latents to images in [-1, 1], for the picture of the noisy ones. Without it
            latents are shown by their first three channels.

    Returns:
        The maps, on the CPU. Source: arXiv 2605.19729 (error and group maps; the share that a
        linear fit explains is the paper's coarse-easy part).
    """
    device = next(student.parameters()).device
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(seed))
    model_timesteps, noisy, errors, groups, explained = [], [], [], [], []
    for timestep in timesteps:
        batches = []
        for first in range(0, len(images), batch_size):
            part = slice(first, first + batch_size)
            number = torch.full((len(images[part]),), timestep)
            batch = process.noise_images(images[part], number, noise[part])
            inputs = (batch.noisy.to(device), batch.timesteps.to(device))
            part_conditions = slice_conditions(conditions or {}, part, device)
            outputs = [denoise(model, *inputs, part_conditions) for model in (student, teacher)]
            batches.append(_of_batch(*outputs, group_size, scope))
            if first == 0:
                model_timesteps.append(batch.timesteps[0].item())
                noisy.append(batch.noisy[:1])
        error, group, residual = (torch.cat(parts) for parts in zip(*batches, strict=True))
        errors.append(error)
        groups.append(group)
        total = error.double().mean((1, 2))  # (N,)
        explained.append(torch.where(total.sum() > 0, 1 - residual.sum() / total.sum(), torch.nan))
    error, group = torch.stack(errors), torch.stack(groups)  # (T, N, height, width)
    noisy, label = _shown(torch.cat(noisy), decode)
    row = images[0, 0].numel() if scope == "channel" else images[0].numel()
    return Maps(
        timesteps=tuple(model_timesteps),
        noisy=noisy,
        error=error[:, 0],
        group=group[:, 0],
        mean_error=error.mean(1),
        mean_group=group.mean(1),
        explained=torch.stack(explained),
        num_images=len(images),
        num_groups=-(-row // group_size),
        noisy_label=label,
    )


def _of_batch(
    student: Tensor, teacher: Tensor, group_size: int, scope: str
) -> tuple[Tensor, Tensor, Tensor]:
    """Error and group number, (images, height, width), means over the channels; and what a linear
    fit leaves of an image's mean error, (images,)."""
    group = linear_fit(student, teacher, group_size=group_size, scope=scope).group
    residual = (regress(student, teacher, scope).fitted - teacher).square().mean((1, 2, 3))
    error = (teacher - student).square().mean(1)
    return error.cpu(), group.float().mean(1).cpu(), residual.cpu()


def _shown(noisy: Tensor, decode: Callable[[Tensor], Tensor] | None) -> tuple[Tensor, str]:
    """Images (T, 1 or 3, height, width) of what the models see, and what to call them."""
    if decode is not None:
        return decode(noisy).cpu(), "noisy latents,\ndecoded"
    if noisy.shape[1] in (1, 3):
        return noisy, "noisy image"
    channels = 3 if noisy.shape[1] > 3 else 1
    label = "noisy latents,\n" + ("channels 1 to 3" if channels == 3 else "channel 1")
    return noisy[:, :channels] / LATENT_RANGE, label


def save_maps(maps: Maps, path: str | Path, beside: Sequence[Maps] = ()) -> None:
    """Writes the maps as one PNG: a column for each timestep.

    Args:
        maps: to plot.
        path: of the PNG.
        beside: of other students, to compare with: all are plotted on one scale.
    """
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
        grid[0, column].set_title(f"t = {timestep:.0f}\n{percent}", fontsize=9)
        grid[0, column].imshow(to_pixels(maps.noisy[column, None])[0])
    images = f"mean of {maps.num_images} images"
    rows = [maps.noisy_label, "error (t - s)²", "PLACE group", f"error (t - s)²\n{images}"]
    rows.append(f"PLACE group\n{images}")
    for axes, label in zip(grid[:, 0], rows, strict=True):
        axes.set_ylabel(label, rotation=0, ha="right", va="center", fontsize=9)
    note = "timestep\nlinear fit explains"
    figure.text((left - 0.08) / width, 1 - (top - 0.06) / height, note, fontsize=9, ha="right")
    plotted = (maps, *beside)
    _plot_errors(figure, grid[1], maps.error, _limits(each.error for each in plotted))
    _plot_errors(figure, grid[3], maps.mean_error, _limits(each.mean_error for each in plotted))
    _plot_groups(figure, grid[2], maps.group, (0, maps.num_groups - 1))
    _plot_groups(figure, grid[4], maps.mean_group, _limits(each.mean_group for each in plotted))
    figure.savefig(path, dpi=130)


def _limits(values: Iterable[Tensor]) -> tuple[float, float]:
    values = torch.cat([each.flatten() for each in values])
    return values.min().item(), values.max().item()


def _plot_errors(figure: Figure, row, values: Tensor, limits: tuple[float, float]) -> None:
    """A row of squared errors, on a logarithmic scale unless all are 0."""
    low, high = limits
    if high <= 0:
        _plot_row(figure, row, values, "inferno", "squared error", {"vmin": low, "vmax": high})
        return
    # The very smallest errors are accidents: four decades below the largest are enough.
    norm = LogNorm(max(low, high * 1e-4), high, clip=True)
    bar = _plot_row(figure, row, values, "inferno", "squared error", {"norm": norm})
    few = high > 30 * low
    bar.yaxis.set_major_locator(LogLocator(subs=(1,) if few else (1, 2, 5)))
    bar.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    bar.yaxis.set_minor_formatter(NullFormatter())


def _plot_groups(figure: Figure, row, values: Tensor, limits: tuple[float, float]) -> None:
    """A row of group numbers."""
    _plot_row(figure, row, values, "viridis", "group", {"vmin": limits[0], "vmax": limits[1]})


def _plot_row(figure: Figure, row, values: Tensor, colours: str, label: str, scale: dict) -> Axes:
    """Plots one row of maps on one scale, and returns its colour bar at the right."""
    for axes, image in zip(row, values.numpy(), strict=True):
        picture = axes.imshow(image, cmap=colours, **scale)
    box = row[-1].get_position()
    bar = figure.add_axes((box.x1 + 0.012, box.y0, 0.014, box.height))
    figure.colorbar(picture, cax=bar).set_label(label, fontsize=8)
    bar.tick_params(labelsize=7)
    return bar
