"""Analyses that look like measured ones."""

import torch

from liftplace.analyze.analysis import (
    Advice,
    Analysis,
    ModelErrors,
    PropagatedErrors,
    Samples,
    StudentAnalysis,
)
from liftplace.analyze.maps import Maps
from liftplace.analyze.propagation import propagate
from liftplace.evaluate.evaluator import Score
from liftplace.models.norms import Norms

NARROW = Norms(groups=8, channels=1, forgetting=17, last_forgets=True, count=23)
WIDE = Norms(groups=2, channels=4, forgetting=0, last_forgets=False, count=23)


def errors_of(
    size: float, *, channels: int = 1, steps: int = 12, group_sizes=(4, 16)
) -> ModelErrors:
    """Errors that fall with `size` and with the noise; total = coarse + fine."""
    generator = torch.Generator().manual_seed(int(1000 * size))
    t = torch.linspace(25, 975, steps, dtype=torch.float64)
    total = (0.02 + 0.4 * torch.exp(-t / 180)) / (1 + 9 * size)
    coarse = total * (0.2 + 0.5 * t / 1000)
    fine = total - coarse
    kept = torch.tensor([0.9 * size / (size + 50) for size in group_sizes], dtype=torch.float64)
    spread = torch.rand(steps, channels, generator=generator, dtype=torch.float64) * 0.2
    middle = (
        1
        - 0.4 * (1 - t / 1000)[:, None]
        + 0.1 * torch.randn(channels, generator=generator, dtype=torch.float64)
    )
    slope = torch.stack([middle - spread, middle, middle + spread], dim=2)
    weight = torch.linspace(0.3, 0.9, steps, dtype=torch.float64)
    return ModelErrors(
        timesteps=t,
        power=torch.full_like(t, 0.97),
        total=total,
        coarse=coarse,
        fine=fine,
        group_sizes=tuple(group_sizes),
        place_fine=kept[:, None] * fine,
        slope=slope,
        intercept=0.3 * (slope - 1),
        weight=kept[:, None] * weight,
        lift_weight=weight,
        identity_gap=3e-16,
        num_images=64,
    )


def carried_of(errors: ModelErrors, steps: int = 10) -> PropagatedErrors:
    """By factors that grow with the noise."""
    timesteps = torch.linspace(990, 90, steps, dtype=torch.float64)
    return propagate(errors, timesteps, torch.exp(timesteps / 300))


def samples_of(fd: float, *, name: str = "Lite0") -> Samples:
    images = torch.rand(12, 1, 16, 16, generator=torch.Generator().manual_seed(int(fd))) * 2 - 1
    return Samples(
        images,
        (
            Score(f"FD-{name}", fd, 0.9 * fd, 1.2 * fd, "lower", floor=5.0),
            Score(f"KID-{name}", fd / 1000, -0.001, fd / 500, "lower", floor=0.0004),
        ),
    )


def maps_of(steps: int = 3) -> Maps:
    generator = torch.Generator().manual_seed(0)
    error = torch.rand(steps, 8, 8, generator=generator)
    group = (error * 3).round()
    return Maps(
        timesteps=tuple(range(100, 100 + steps)),
        noisy=torch.zeros(steps, 1, 8, 8),
        error=error,
        group=group,
        mean_error=error,
        mean_group=group,
        explained=torch.full((steps,), 0.5),
        num_images=4,
        num_groups=4,
    )


def analysis_of(
    shares=(0.03, 0.2), *, labels=None, channels: int = 1, sampled: bool = True, **options
) -> Analysis:
    """A student for each share of the teacher's 1,000,000 parameters."""
    measured = [errors_of(share, channels=channels, **options) for share in shares]
    students = tuple(
        StudentAnalysis(
            label=labels[number] if labels else f"student-{number}",
            parameters=round(1e6 * share),
            macs=round(1e7 * share),
            norms=WIDE if number else NARROW,
            errors=measured[number],
            carried=carried_of(measured[number]),
            advice=Advice("fine", 0.25, f"advice {number}"),
            maps=maps_of(),
            plain=samples_of(20 / share**0.5 + number) if sampled else None,
            corrected=samples_of(12 / share**0.3 + number) if sampled else None,
            trajectory=samples_of(16 / share**0.4 + number) if sampled else None,
        )
        for number, share in enumerate(shares)
    )
    return Analysis(
        teacher="teacher",
        teacher_parameters=1_000_000,
        teacher_macs=10_000_000,
        teacher_norms=WIDE,
        prediction_type="epsilon",
        num_train_timesteps=1000,
        teacher_samples=samples_of(11.0) if sampled else None,
        students=students,
        scope="channel",
        elements=256,
        num_samples=500 if sampled else 0,
        num_inference_steps=25,
        network="FD-Lite0" if sampled else None,
        num_components=64 if sampled else None,
    )
