"""The distillation error by timestep: the part that linear fits explain, and the rest."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from liftplace import lift_loss, place_loss
from liftplace.analyze.analysis import ModelErrors
from liftplace.analyze.correction import regress
from liftplace.common.errors import NonFiniteError
from liftplace.evaluate.sampling import denoise, initial_noise, slice_conditions
from liftplace.families.family import Conditions
from liftplace.models.noise import FLOW, NoiseProcess

QUANTILES = (0.1, 0.5, 0.9)
MEANS = ("power", "total", "coarse", "fine", "lift_deviation")


def spread_timesteps(process: NoiseProcess, count: int) -> list[int]:
    """The numbers in the middle of `count` equal shares of the process, ascending in noise."""
    steps = process.scheduler.config.num_train_timesteps
    middles = [(2 * share + 1) * steps // (2 * count) for share in range(count)]
    # Flow matching counts from pure noise down.
    return [steps - 1 - number for number in middles] if is_flow(process) else middles


def is_flow(process: NoiseProcess) -> bool:
    return process.prediction_type == FLOW


@torch.no_grad()
def measure_errors(
    students: Mapping[str, nn.Module],
    teacher: nn.Module,
    process: NoiseProcess,
    latents: Tensor,
    conditions: Conditions | None = None,
    *,
    numbers: Sequence[int],
    group_sizes: Sequence[int] = (16,),
    scope: str = "channel",
    batch_size: int = 32,
    seed: int = 0,
    description: str | None = "Measuring errors",
) -> dict[str, ModelErrors]:
    """Compares students with their teacher on the same noisy images at each timestep. The teacher
    runs once on each.

    Args:
        students, teacher: models of one shape, on one device, in any type; by name.
        process: their noise process.
        latents: (N, channels, height, width), float32: images, or what the VAE makes of them.
        conditions: by name, (N, ...).
        numbers: of the process's timesteps, ascending in noise; see `spread_timesteps`.
        group_sizes: of PLACE, ascending.
        scope: a row is a "channel" of an image, or a whole "sample".
        batch_size: images at a time.
        seed: of the noise, which is an image's own and the same at every timestep.
        description: label of the progress bar; ``None`` for no bar.

    Raises:
        NonFiniteError: an output with NaN or infinity in it.
        RuntimeError: total = coarse + fine does not hold, which would be a bug.
    """
    device = next(teacher.parameters()).device
    noise = initial_noise(len(latents), tuple(latents.shape[1:]), seed)
    tallies = {name: _Tally(len(numbers), group_sizes, scope) for name in students}
    timesteps = [0.0] * len(numbers)
    firsts = range(0, len(latents), batch_size)
    total = len(firsts) * len(numbers)
    with tqdm(total=total, desc=description, disable=description is None) as bar:
        for first in firsts:
            part = slice(first, first + batch_size)
            clean, noise_part = latents[part].to(device), noise[part].to(device)
            part_conditions = slice_conditions(conditions or {}, part, device)
            for place, number in enumerate(numbers):
                batch = process.noise_images(
                    clean, torch.full((len(clean),), number, device=device), noise_part
                )
                timesteps[place] = batch.timesteps[0].item()
                inputs = (batch.noisy, batch.timesteps, part_conditions)
                target = _finite(denoise(teacher, *inputs), "the teacher", timesteps[place])
                for name, student in students.items():
                    output = _finite(denoise(student, *inputs), name, timesteps[place])
                    tallies[name].add(place, output.double(), target.double())
                bar.update()
    return {name: tally.errors(timesteps, len(latents)) for name, tally in tallies.items()}


def _finite(output: Tensor, name: str, timestep: float) -> Tensor:
    if not output.isfinite().all():
        raise NonFiniteError(f"{name} gives NaN or infinity at timestep {timestep:g}")
    return output


class _Tally:
    """Sums over the outputs of one student so far."""

    def __init__(self, timesteps: int, group_sizes: Sequence[int], scope: str) -> None:
        self.group_sizes, self.scope = tuple(group_sizes), scope
        self.sums = {name: torch.zeros(timesteps, dtype=torch.float64) for name in MEANS}
        groups = (len(self.group_sizes), timesteps)
        self.place_fine = torch.zeros(groups, dtype=torch.float64)
        self.deviation = torch.zeros(groups, dtype=torch.float64)
        self.slopes = [[] for _ in range(timesteps)]
        self.intercepts = [[] for _ in range(timesteps)]

    def add(self, place: int, student: Tensor, teacher: Tensor) -> None:
        """Counts a batch (images, channels, height, width), float64, at timestep number `place`."""
        images = len(student)
        fit = regress(student, teacher, self.scope)
        lift = lift_loss(student, teacher, scope=self.scope, return_fit=True)[1]
        means = {
            "power": teacher.square().mean(),
            "total": (teacher - student).square().mean(),
            "coarse": (fit.fitted - student).square().mean(),
            "fine": (fit.fitted - teacher).square().mean(),
            "lift_deviation": lift.coarse,  # D, by the norm l1
        }
        for name, value in means.items():
            self.sums[name][place] += images * value.item()
        for row, size in enumerate(self.group_sizes):
            options = {"group_size": size, "scope": self.scope, "return_fit": True}
            place_fit = place_loss(student, teacher, **options)[1]
            self.place_fine[row, place] += images * place_fit.fine.item()
            self.deviation[row, place] += images * place_fit.coarse.item()
        self.slopes[place].append(fit.slope.view(images, -1).cpu())
        self.intercepts[place].append(fit.intercept.view(images, -1).cpu())

    def errors(self, timesteps: list[float], images: int) -> ModelErrors:
        means = {name: total / images for name, total in self.sums.items()}
        deviation = means.pop("lift_deviation")
        return ModelErrors(
            timesteps=torch.tensor(timesteps, dtype=torch.float64),
            **means,
            group_sizes=self.group_sizes,
            place_fine=self.place_fine / images,
            slope=_quantiles(self.slopes),
            intercept=_quantiles(self.intercepts),
            weight=1 - (self.deviation / images).clamp(max=1),
            lift_weight=1 - deviation.clamp(max=1),
            identity_gap=identity_gap(**means),
            num_images=images,
        )


def _quantiles(batches: list[list[Tensor]]) -> Tensor:
    """(timesteps, channels, quantiles) over the images of all batches, (images, channels) each."""
    levels = torch.tensor(QUANTILES, dtype=torch.float64)
    return torch.stack([torch.cat(parts).quantile(levels, dim=0).T for parts in batches])


def identity_gap(power: Tensor, total: Tensor, coarse: Tensor, fine: Tensor) -> float:
    """The largest |total - coarse - fine| / total; 0 where there is no error at all.

    Raises:
        RuntimeError: it is beyond rounding.
    """
    gap = (total - coarse - fine).abs()
    # A fitted value is off by about 1e-16 of the output, and that times the error itself.
    rounding = 1e-9 * total + 1e-14 * (total * power).sqrt() + 1e-28 * power
    if (gap > rounding).any():
        raise RuntimeError(f"coarse and fine do not add up to the error: the difference is {gap}")
    return torch.where(total > 0, gap / total, 0.0).max().item()
