"""Tests on a GPU run what ships."""

import pytest


@pytest.fixture(autouse=True)
def _poisoned_memory():
    """In place of the one for all tests, whose deterministic mode sends impl="torch" another way.

    On CUDA `scatter_`, which writes the group numbers, becomes an `index_put_` that sorts; every
    `torch.empty` launches a fill of its own; cuDNN and others choose other algorithms.
    """
