import torch

from liftplace.common.seeds import derive_seed, generator_for


def test_seed_depends_on_every_name_and_on_nothing_else():
    names = [(0, "noise", 1), (1, "noise", 1), (0, "noise", 2), (0, "epoch", 1), (0, "noise", 1, 0)]
    seeds = [derive_seed(*each) for each in names]
    assert len(set(seeds)) == len(seeds)
    assert seeds == [derive_seed(*each) for each in names]
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_generators_of_one_name_agree():
    one, two, other = (
        torch.rand(4, generator=generator_for("cpu", 3, "noise", step)) for step in (5, 5, 6)
    )
    assert torch.equal(one, two)
    assert not torch.equal(one, other)
