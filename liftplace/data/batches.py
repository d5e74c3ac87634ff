"""Batches of a run: which images, and what noise, each step sees."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from accelerate import Accelerator
from torch.utils.data import Dataset, Sampler

from liftplace.common.seeds import generator_for
from liftplace.data.config import BatchConfig
from liftplace.data.encoder import Encoder
from liftplace.data.reading import read_batches, warn_of
from liftplace.data.resident import read_whole, resides
from liftplace.models.noise import NoiseProcess, NoisyBatch


def effective_batch(config: BatchConfig, world_size: int) -> int:
    """Images an optimiser step."""
    return config.train_batch_size * config.gradient_accumulation_steps * world_size


def noisy_batches(
    dataset: Dataset,
    encoder: Encoder,
    process: NoiseProcess,
    config: BatchConfig,
    accelerator: Accelerator,
    start: int,
    on_problem: Callable[[str], None] | None = None,
) -> Iterator[NoisyBatch]:
    """The noisy batches of the steps after step `start`, on the accelerator's device.

    `on_problem` is that of `read_batches`, unless `config.on_bad_files` is "skip".

    Of several processes each gets its share of the batch. Every process draws the random numbers
    of the whole batch.
    """
    parts = config.gradient_accumulation_steps
    numbers = range(start * parts, config.max_train_steps * parts)
    rank, world_size = accelerator.process_index, accelerator.num_processes
    size, batch_size, seed = len(dataset), config.train_batch_size, config.seed
    sampler = ShuffledBatches(
        size, batch_size, numbers, seed=seed, rank=rank, world_size=world_size
    )
    loader = _items(dataset, sampler, config, accelerator.device, on_problem)
    share = slice(rank * batch_size, (rank + 1) * batch_size)
    whole = (world_size * batch_size, *encoder.shape)
    for number, items in zip(numbers, loader, strict=True):
        generator = generator_for(accelerator.device, config.seed, "noise", number)
        timestep_numbers, noise = process.draw(whole, generator)
        coins = torch.rand(2, whole[0], generator=generator, device=accelerator.device)[:, share]
        if config.random_flip:
            images = items["images"]
            heads = _like(coins[0] < 0.5, images)
            items["images"] = torch.where(heads, images.flip(-1), images)
        posterior = None
        if encoder.vae is not None:
            posterior = torch.randn(whole, generator=generator, device=accelerator.device)[share]
        latents = encoder.latents(items, posterior)
        conditions = encoder.conditions(items)
        if config.conditioning_dropout_prob > 0:
            empty = encoder.null_conditions(len(latents))
            for name, value in empty.items():
                drop = _like(coins[1] < config.conditioning_dropout_prob, value)
                conditions[name] = torch.where(drop, value, conditions[name])
        batch = process.noise_images(latents, timestep_numbers[share], noise[share])
        yield replace(batch, conditions=conditions)


def _items(
    dataset: Dataset,
    sampler: "ShuffledBatches",
    config: BatchConfig,
    device: torch.device,
    on_problem: Callable[[str], None] | None,
) -> Iterator[dict]:
    """The batches of the dataset's items, tensors on the device."""
    skip = warn_of if config.on_bad_files == "skip" else None
    epochs = len(sampler) * sampler.batch_size * sampler.world_size / len(dataset)
    if resides(dataset, device, config.dataset_on_device, epochs):
        fields = read_whole(dataset, device, config.dataloader_num_workers, skip)
        for indices in sampler.tensors(device):
            yield {name: field[indices] for name, field in fields.items()}
        return
    options = {
        "batch_sampler": sampler,
        "num_workers": config.dataloader_num_workers,
        "pin_memory": device.type == "cuda",
    }
    for items in read_batches(dataset, skip or on_problem, **options):
        yield {name: _to(value, device) for name, value in items.items()}


def _to(value, device: torch.device):
    """Tensors to the device; captions stay what they are."""
    return value.to(device, non_blocking=True) if isinstance(value, torch.Tensor) else value


def _like(each: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """(batch,) in a shape that broadcasts with `other`, (batch, ...)."""
    return each.view(-1, *(1,) * (other.dim() - 1))


class ShuffledBatches(Sampler[list[int]]):
    """Indices of one process's batches: every image once an epoch, in an order of its own.

    Batch n of the run takes the n-th stretch of the endless sequence of shuffled epochs, so the
    last images of an epoch share a batch with the first of the next.

    Args:
        size: number of images.
        batch_size: images a batch in one process.
        batches: which batches of the run to give.
        seed: of the shuffling.
        rank, world_size: of this process, and how many share each batch.
    """

    def __init__(
        self,
        size: int,
        batch_size: int,
        batches: range,
        *,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.size = size
        self.batch_size = batch_size
        self.batches = batches
        self.seed = seed
        self.rank = rank
        self.world_size = world_size

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[int]]:
        for indices in self.tensors(torch.device("cpu")):
            yield indices.tolist()

    def tensors(self, device: torch.device) -> Iterator[torch.Tensor]:
        """The same indices, (batch_size,), int64, on a device that is not waited for."""
        epoch, order = -1, None
        for batch in self.batches:
            position = (batch * self.world_size + self.rank) * self.batch_size
            end, parts = position + self.batch_size, []
            while position < end:
                if position // self.size != epoch:
                    epoch = position // self.size
                    order = self._shuffled(epoch, device)
                first = position % self.size
                parts.append(order[first : first + end - position])
                position += len(parts[-1])
            yield torch.cat(parts)

    def _shuffled(self, epoch: int, device: torch.device) -> torch.Tensor:
        generator = generator_for("cpu", self.seed, "epoch", epoch)
        order = torch.randperm(self.size, generator=generator)
        if device.type == "cuda":
            order = order.pin_memory()  # from other memory a copy waits
        return order.to(device, non_blocking=True)
