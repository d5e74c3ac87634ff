import pytest

from liftplace.models.saving import save_pipeline
from tests.train.tiny import process, tiny_unet


@pytest.fixture(scope="session")
def teacher_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "teacher"
    save_pipeline(tiny_unet(), process(), folder)
    return folder
