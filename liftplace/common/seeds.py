"""Random numbers that follow from the seed and the step alone, so that a resumed run needs no
generator state, and a run does not depend on how its batch is split over processes."""

import hashlib

import torch


def derive_seed(seed: int, *names: int | str) -> int:
    """A 63-bit seed for what `names` name, unrelated to the seed of any other names."""
    digest = hashlib.blake2b(repr((seed, *names)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def generator_for(device: torch.device | str, seed: int, *names: int | str) -> torch.Generator:
    """A generator on `device`, seeded for what `names` name."""
    return torch.Generator(device).manual_seed(derive_seed(seed, *names))
