from types import SimpleNamespace

import pytest
import torch

from liftplace.train.optimizer import fuse, new_optimizer
from tests.train.tiny import config_for


def accelerator(device: str, mixed_precision: str = "no") -> SimpleNamespace:
    return SimpleNamespace(device=torch.device(device), mixed_precision=mixed_precision)


def trained(on) -> tuple[torch.Tensor, torch.optim.Optimizer]:
    """A weight after five steps, and what stepped it."""
    weight = torch.nn.Parameter(torch.linspace(-1, 1, 12))
    optimizer = new_optimizer([weight], config_for("unused", adam_weight_decay=0.1))
    fuse(optimizer, on)
    for step in range(5):
        weight.grad = torch.sin(weight.detach() * (3 + step))
        optimizer.step()
    return weight.detach(), optimizer


def test_fused_steps_are_the_same():
    plain, optimizer = trained(accelerator("mps"))
    fused, its = trained(accelerator("cpu"))
    assert not optimizer.param_groups[0]["fused"] and its.param_groups[0]["fused"]
    torch.testing.assert_close(fused, plain, rtol=1e-5, atol=1e-6)
    assert (plain - torch.linspace(-1, 1, 12)).abs().max() > 0.02


@pytest.mark.parametrize("on", [accelerator("mps"), accelerator("cuda", "fp16")])
def test_where_steps_are_not_fused(on):
    assert not trained(on)[1].param_groups[0]["fused"]


def test_a_fused_optimizer_goes_on_where_another_stopped():
    """A run may move between devices."""
    _, optimizer = trained(accelerator("mps"))
    weight = torch.nn.Parameter(torch.linspace(-1, 1, 12))
    other = new_optimizer([weight], config_for("unused"))
    fuse(other, accelerator("cpu"))
    other.load_state_dict(optimizer.state_dict())
    weight.grad = torch.ones_like(weight)
    other.step()
    assert other.state[weight]["step"].item() == 6
