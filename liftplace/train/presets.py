"""The settings of the paper's experiments: the YAML files of liftplace/configs."""

from pathlib import Path

from liftplace.common.errors import UsageError

FOLDER = Path(__file__).resolve().parents[1] / "configs"


def preset_file(name: str) -> Path:
    """The YAML file of a preset.

    Raises:
        UsageError: there is no such preset.
    """
    path = FOLDER / f"{name}.yaml"
    if path not in preset_files():
        known = ", ".join(file.stem for file in preset_files())
        raise UsageError(f"there is no --preset {name}: choose from {known}")
    return path


def preset_files() -> list[Path]:
    return sorted(FOLDER.glob("*.yaml"))
