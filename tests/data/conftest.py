from functools import cache

import pytest

from liftplace.data import load_dataset
from liftplace.data.encoder import Encoder
from liftplace.models.loading import load_model
from tests.families.pipelines import tiny_pipeline
from tests.train.tiny import RESOLUTION


@pytest.fixture(scope="session")
def digits():
    return load_dataset("digits", resolution=RESOLUTION)


@pytest.fixture(scope="session")
def pipelines(tmp_path_factory):
    """Folder of the tiny pipeline of a name, written once."""
    return cache(lambda name: tiny_pipeline(name, tmp_path_factory.mktemp(name)))


@pytest.fixture(scope="session")
def encoders(pipelines):
    """Encoder of that pipeline; not to be changed."""
    return cache(lambda name: Encoder(load_model(pipelines(name)), 16))
