"""The trainer: distil a student from a teacher, or train a model from scratch."""

from importlib import import_module

_HOME = {
    "CheckpointError": ".checkpoint",
    "DistillConfig": ".config",
    "ModelTrainer": ".trainer",
    "NoiseProcess": "..models.noise",
    "NonFiniteError": "..common.errors",
    "Objective": ".objective",
    "TrainConfig": ".config",
    "TrainerSpec": ".trainer",
    "TrainingInterrupted": ".loop",
    "distill": ".commands",
    "fit": ".loop",
    "new_trainers": ".setup",
    "train": ".commands",
}
__all__ = sorted(_HOME)


def __getattr__(name: str):
    """Imports on first use: reading a configuration should not wait for diffusers."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name], __name__), name)
