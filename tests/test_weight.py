"""The adaptive weight, alone and averaged over two real processes."""

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from liftplace import place_loss
from liftplace._weight import adaptive_weight


@pytest.mark.parametrize("deviation, w", [(0.0, 1.0), (0.25, 0.75), (1.0, 0.0), (7.0, 0.0)])
def test_by_hand(deviation, w):
    assert adaptive_weight(torch.tensor(deviation), 1) == w


def test_nan_stays():
    assert adaptive_weight(torch.tensor(float("nan")), 1).isnan()


def _batch():
    generator = torch.Generator().manual_seed(0)
    student = torch.randn(6, 2, 40, generator=generator)
    noise = torch.randn(6, 2, 40, generator=generator)
    # unlike in fit, so that a weight of one rank's own would show
    return student, student * torch.linspace(0.7, 1.3, 6)[:, None, None] + 0.1 * noise


def _run_rank(rank: int, file: str, split: tuple[int, int]):
    dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2)
    student, teacher = (x.split(split)[rank] for x in _batch())
    results = {}
    for impl in ("torch", "reference"):
        leaf = student.clone().requires_grad_()
        world = {"process_group": dist.group.WORLD, "return_fit": True}
        loss, fit = place_loss(leaf, teacher, impl=impl, **world)
        loss.backward()
        # each rank's mean, weighted by its samples
        loss = loss.detach() * len(student) / 6
        dist.all_reduce(loss)
        results[impl] = (loss, fit.weight, leaf.grad * len(student) / 6)
    torch.save(results, f"{file}.{rank}")
    dist.destroy_process_group()


@pytest.mark.parametrize("split", [(3, 3), (4, 2), (6, 0)], ids=str)
def test_two_processes_weigh_as_one(split, tmp_path):
    file = str(tmp_path / "store")
    mp.spawn(_run_rank, (file, split), nprocs=2)
    ranks = [torch.load(f"{file}.{rank}") for rank in range(2)]
    student, teacher = _batch()
    student.requires_grad_()
    expected, fit = place_loss(student, teacher, return_fit=True)
    expected.backward()
    assert 0 < fit.weight < 1
    for impl in ("torch", "reference"):
        for rank in ranks:
            torch.testing.assert_close(rank[impl][1], fit.weight)
            torch.testing.assert_close(rank[impl][0], expected.detach())
        grad = torch.cat([rank[impl][2] for rank in ranks])
        torch.testing.assert_close(grad, student.grad, rtol=1e-4, atol=1e-7)
