"""What a student costs beside its teacher, and whether it can be trained."""

import torch
from torch import nn

from liftplace.common.errors import UsageError
from liftplace.common.text_table import text_table
from liftplace.families import family_of_model
from liftplace.models.costs import count_macs, count_parameters
from liftplace.models.norms import compare_norms

LARGEST_CHECK = 32  # height and width; a forward and backward of the whole size may not fit


def compare(student: nn.Module, teacher: nn.Module) -> str:
    """A table of parameters and multiply-accumulates, and the student's share of the teacher's; and
    the norm groups of both."""
    counts = {
        "parameters": [count_parameters(model) for model in (teacher, student)],
        "MACs": [count_macs(model) for model in (teacher, student)],
    }
    rows = [("", "teacher", "student", "share")]
    for name, (large, small) in counts.items():
        rows.append((name, f"{large:,}", f"{small:,}", f"{small / large:.1%}"))
    lines = [text_table(rows)]
    norms = compare_norms(student, teacher)
    return "\n".join(lines if norms is None else [*lines, f"norm groups {norms}"])


def check_trains(student: nn.Module, seed: int = 0) -> None:
    """One forward and backward on random inputs, at most 32 x 32 in size.

    Raises:
        UsageError: an output of another shape than the config says, or an output or gradient that
            is not finite.
    """
    family, config = family_of_model(student), student.config
    size = min(family.sample_size(config) or LARGEST_CHECK, LARGEST_CHECK)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        noisy, timesteps, conditions = family.example(config, size=size)
    to = {"device": student.device, "dtype": student.dtype}
    conditions = {
        name: value.to(**to) if value.is_floating_point() else value.to(student.device)
        for name, value in conditions.items()
    }
    output = family.predict(student, noisy.to(**to), timesteps.to(student.device), conditions)
    expected = (1, family.out_channels(config), size, size)
    if output.shape != expected:
        raise UsageError(f"the student's output is {tuple(output.shape)}, need {expected}")
    gradients = torch.autograd.grad(
        output.float().square().mean(), list(student.parameters()), allow_unused=True
    )
    finite = [torch.isfinite(value).all() for value in (output, *gradients) if value is not None]
    if not all(finite):
        raise UsageError(
            "the student's forward and backward are not finite: check the teacher's weights"
        )
