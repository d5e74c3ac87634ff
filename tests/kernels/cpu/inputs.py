"""Errors that are hard to group: crowded, tied, spread over all of float's range."""

import torch
from torch import Tensor

KINDS = {
    "Gaussian": torch.randn,
    "half tied": lambda n: torch.where(torch.arange(n) % 2 == 0, torch.tensor(0.5), torch.randn(n)),
    "all equal": lambda n: torch.full((n,), -0.75),
    "zeros": torch.zeros,
    "one huge": lambda n: torch.randn(n).index_fill(0, torch.tensor([n // 2]), 1e18),
    "one tiny": lambda n: torch.randn(n).index_fill(0, torch.tensor([n // 3]), 1e-18),
    "underflowing": lambda n: 1e-22 * torch.randn(n),  # the error is subnormal or 0
    "overflowing": lambda n: 1e20 * torch.randn(n),  # the error is infinite
    "Cauchy": lambda n: torch.randn(n) / torch.randn(n),
    "integers": lambda n: torch.randint(-3, 4, (n,)).float(),
    "all octaves": lambda n: torch.exp2(torch.linspace(-74, 62, n)[torch.randperm(n)]),
    "clusters": lambda n: 1.0 + torch.randint(0, 40, (n,)) * 2.0**-22,
    "two clusters": lambda n: torch.where(torch.rand(n) < 0.5, 1.0, 1e-4) + 1e-7 * torch.rand(n),
    "ascending": lambda n: torch.linspace(0, 1, n),
    "descending": lambda n: torch.linspace(1, 0, n),
}


def row(kind: str, n: int) -> Tensor:
    """teacher - student of one row, float32 (n,)."""
    return KINDS[kind](n)


def expected_groups(difference: Tensor, size: int) -> Tensor:
    """The group of each element by a stable sort of the float32 errors."""
    order = torch.sort(difference.float().square(), stable=True).indices
    group = torch.empty_like(order)
    group[order] = torch.arange(len(order)) // size
    alone = len(order) % size == 1  # it belongs to the group before
    return group.clamp(max=len(order) // size - 1) if alone else group
