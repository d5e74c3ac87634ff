import pytest
from accelerate.state import AcceleratorState

from liftplace.data import load_dataset
from liftplace.models.saving import save_pipeline
from tests.train.tiny import RESOLUTION, process, tiny_unet


@pytest.fixture(scope="session")
def digits():
    return load_dataset("digits", resolution=RESOLUTION)


@pytest.fixture(scope="session")
def teacher_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "teacher"
    save_pipeline(tiny_unet(), process(), folder)
    return folder


@pytest.fixture(autouse=True)
def _new_accelerator():
    """accelerate keeps the precision of a process's first run, and refuses another."""
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
