from types import SimpleNamespace

import pytest
import torch
from torch.utils.data import Subset

from liftplace.data.batches import ShuffledBatches, noisy_batches
from tests.train.tiny import config_for, encoder, process


def test_every_image_once_an_epoch_in_a_new_order():
    batches = list(ShuffledBatches(10, 4, range(5), seed=0))
    indices = sum(batches, [])
    assert sorted(indices[:10]) == sorted(indices[10:]) == list(range(10))
    assert indices[:10] != indices[10:]


def test_a_resumed_run_takes_up_the_same_batches():
    whole = list(ShuffledBatches(7, 3, range(9), seed=1))
    assert list(ShuffledBatches(7, 3, range(5, 9), seed=1)) == whole[5:]


def test_a_batch_may_be_larger_than_the_data_set():
    (batch,) = ShuffledBatches(3, 8, range(1), seed=0)
    assert sorted(batch[:3]) == sorted(batch[3:6]) == [0, 1, 2]


def test_processes_share_the_batches_of_one():
    alone = list(ShuffledBatches(10, 6, range(4), seed=2))
    shares = [ShuffledBatches(10, 3, range(4), seed=2, rank=rank, world_size=2) for rank in (0, 1)]
    assert [first + second for first, second in zip(*shares, strict=True)] == alone


def machine(rank: int, ranks: int) -> SimpleNamespace:
    """What noisy_batches asks an accelerator."""
    return SimpleNamespace(device=torch.device("cpu"), process_index=rank, num_processes=ranks)


@pytest.mark.parametrize("prediction_type", ["epsilon", "flow"])
def test_noise_does_not_depend_on_how_the_batch_is_split(digits, prediction_type):
    noise = type(process()).new(prediction_type)
    config = config_for("unused", max_train_steps=2, train_batch_size=8)
    halves = config_for("unused", max_train_steps=2, train_batch_size=4)
    whole = list(noisy_batches(digits, encoder(), noise, config, machine(0, 1), 0))
    shares = [
        list(noisy_batches(digits, encoder(), noise, halves, machine(rank, 2), 0))
        for rank in (0, 1)
    ]
    assert len(whole) == 4  # two steps of two parts
    for batch, *parts in zip(whole, *shares, strict=True):
        for name in ("noisy", "timesteps", "target"):
            joined = torch.cat([getattr(part, name) for part in parts])
            assert torch.equal(joined, getattr(batch, name))


def test_flips_mirror_some_images_and_change_nothing_else(digits):
    plain, flipped = (
        next(noisy_batches(digits, encoder(), process(), config, machine(0, 1), 0))
        for config in (
            config_for("unused", random_flip=flip, train_batch_size=32) for flip in (False, True)
        )
    )
    assert torch.equal(plain.target, flipped.target)
    same = (plain.noisy == flipped.noisy).flatten(1).all(dim=1)
    assert 4 < same.sum() < 28


@pytest.mark.parametrize("batch_size", [4, 24])  # also one that is longer than an epoch
def test_images_on_the_device_give_the_same_batches(digits, batch_size):
    few = Subset(digits, range(0, 400, 40))
    settings = {"max_train_steps": 4, "train_batch_size": batch_size}
    loaded, resident = (
        list(noisy_batches(few, encoder(), process(), config, machine(1, 2), 1))
        for config in (
            config_for("unused", dataset_on_device=choice, **settings)
            for choice in ("never", "always")
        )
    )
    assert len(loaded) == len(resident) == 6
    for one, other in zip(loaded, resident, strict=True):
        for name in ("noisy", "timesteps", "target"):
            assert torch.equal(getattr(one, name), getattr(other, name))


def test_images_on_the_device_are_read_once(digits):
    class Counted(Subset):
        reads = 0

        def __getitem__(self, index):
            self.reads += 1
            return super().__getitem__(index)

        __getitems__ = None  # one by one

    few = Counted(digits, range(10))
    config = config_for("unused", dataset_on_device="always", max_train_steps=9)
    assert len(list(noisy_batches(few, encoder(), process(), config, machine(0, 1), 0))) == 18
    assert few.reads == 11  # and the first once more, for its size


def test_on_a_cpu_images_are_read_as_they_are_needed(digits):
    config = config_for("unused", max_train_steps=9)
    first = next(noisy_batches(Vain(digits), encoder(), process(), config, machine(0, 1), 0))
    assert len(first.noisy) == 4


class Vain(Subset):
    """Fails if many of its images are asked for."""

    def __init__(self, dataset):
        super().__init__(dataset, range(8))
        self.left = 4

    def __getitems__(self, indices):
        self.left -= len(indices)
        assert self.left >= 0
        return super().__getitems__(indices)
