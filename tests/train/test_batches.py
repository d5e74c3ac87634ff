from types import SimpleNamespace

import pytest
import torch

from liftplace.train.batches import ShuffledBatches, noisy_batches
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
    shares = [
        ShuffledBatches(10, 3, range(4), seed=2, process=rank, processes=2) for rank in (0, 1)
    ]
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
