"""Inputs and calls that every test on the GPU takes an implementation through."""

from functools import partial

import pytest
import torch
from torch import Tensor

from liftplace import _dispatch, lift_loss, place_loss

IMPLS = ["triton", "cuda"]
# Rows that one program holds, rows that are cut into chunks, and ragged ones.
SHAPES = [(8, 3, 32, 32), (2, 3, 128, 128), (1, 2, 300, 301)]
CALLS = [lift_loss, place_loss, partial(place_loss, group_size=100)]
WEIGHTS = ["adaptive", 0.5, "tensor"]


def runs_here(impl: str) -> None:
    """Skip the test, with the reason, where `impl` cannot run."""
    x = torch.zeros(1, 1, 32, device="cuda")
    try:
        _dispatch.choose(impl, x, x, 32)
    except RuntimeError as error:
        pytest.skip(str(error))


def pair(shape: tuple[int, ...], seed: int = 0) -> tuple[Tensor, Tensor]:
    """A student that needs a gradient and a teacher near it; some errors tie."""
    generator = torch.Generator("cuda").manual_seed(seed)
    student = torch.randn(shape, generator=generator, device="cuda")
    noise = torch.randn(shape, generator=generator, device="cuda")
    teacher = 0.9 * student + 0.05 + 0.1 * noise
    teacher[..., ::7] = student[..., ::7] + 0.25
    return student.requires_grad_(), teacher


def loss_and_gradient(call, student: Tensor, teacher: Tensor, impl: str, **options):
    loss = call(student, teacher, impl=impl, **options)
    return loss.detach(), torch.autograd.grad(loss, student)[0]
