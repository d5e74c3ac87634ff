"""Checkpoints that are either complete or not there.

A checkpoint is written into a hidden folder beside its place, flushed to the disk, and renamed.
"""

import json
import re
import shutil
from pathlib import Path
from pickle import UnpicklingError

from accelerate import Accelerator
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor

from liftplace.common.errors import UsageError
from liftplace.common.files import flush, partial_of, put_in_place
from liftplace.train.trainer import ModelTrainer, whole

STATE = "state.json"

# What is raised by reading a file that is cut off, overwritten or of another model.
DAMAGE = (OSError, EOFError, KeyError, RuntimeError, ValueError, SafetensorError, UnpicklingError)


class CheckpointError(RuntimeError):
    """A checkpoint could not be written or read."""


class Checkpoints:
    """The checkpoints of one run: folders checkpoint-N, N being the steps done.

    Args:
        folder: of the run.
        limit: keep this many of the newest; None keeps all.
    """

    def __init__(self, folder: str | Path, limit: int | None = None) -> None:
        self.folder = Path(folder)
        self.limit = limit

    def complete(self) -> list[Path]:
        """The complete checkpoints, oldest first."""
        if not self.folder.is_dir():
            return []
        folders = [path for path in self.folder.iterdir() if _step(path) is not None]
        return sorted((path for path in folders if (path / STATE).is_file()), key=_step)

    def latest(self) -> Path | None:
        complete = self.complete()
        return complete[-1] if complete else None

    def find(self, name: str | None) -> Path | None:
        """The checkpoint that `resume_from_checkpoint` names; None for a start from step 0.

        Raises:
            UsageError: there is none of that name, or a later one that would be lost.
        """
        if name is None:
            return None
        if name == "latest":
            return self.latest()
        path = self.folder / name if Path(name).name == name else Path(name)
        if path.resolve() not in [complete.resolve() for complete in self.complete()]:
            raise UsageError(f"--resume_from_checkpoint: {self.folder} has no checkpoint {name}")
        if path.resolve() != self.latest().resolve():
            raise UsageError(
                f"--resume_from_checkpoint {name}: {self.latest()} is later; move it away first, "
                "or resume from latest"
            )
        return path

    def save(self, accelerator: Accelerator, trainers: list[ModelTrainer], step: int) -> None:
        """Write checkpoint-`step`, then delete those beyond the limit. Every process calls this.

        Raises:
            CheckpointError: writing failed. The checkpoints before are untouched.
        """
        final = self.folder / f"checkpoint-{step}"
        if (final / STATE).is_file():
            return
        partial = partial_of(final)
        if accelerator.is_main_process:
            self._remove_partial()
            partial.mkdir(parents=True)
        accelerator.wait_for_everyone()
        try:
            accelerator.save_state(str(partial))
            emas = _whole_emas(trainers)
            accelerator.wait_for_everyone()
            if accelerator.is_main_process:
                _write_own_state(partial, emas, trainers, step)
                flush(partial)
                put_in_place(partial, final)
        except (OSError, RuntimeError, SafetensorError) as error:  # torch's are RuntimeErrors
            shutil.rmtree(partial, ignore_errors=True)
            raise CheckpointError(
                f"could not write {final}: {error}; the last complete checkpoint is "
                f"{self.latest() or 'none'}"
            ) from error
        if accelerator.is_main_process and self.limit is not None:
            for path in self.complete()[: -self.limit]:
                shutil.rmtree(path)
        accelerator.wait_for_everyone()

    def load(self, path: Path, accelerator: Accelerator, trainers: list[ModelTrainer]) -> int:
        """Put the trainers back to where they were; gives the steps that are done."""
        try:
            state = json.loads((path / STATE).read_text(encoding="utf-8"))
            _check_names(path, list(state["learners"]), [trainer.name for trainer in trainers])
            accelerator.load_state(str(path))
            for trainer in trainers:
                if trainer.ema is not None:
                    _load_ema(trainer, path, state["learners"][trainer.name])
        except UsageError:
            raise
        except DAMAGE as error:
            raise CheckpointError(
                f"cannot load {path}: it is damaged or of another model ({type(error).__name__})"
            ) from error
        return state["step"]

    def _remove_partial(self) -> None:
        for path in self.folder.glob(".checkpoint-*.partial"):
            shutil.rmtree(path)


def _check_names(path: Path, saved: list[str], expected: list[str]) -> None:
    if saved != expected:
        raise UsageError(f"{path} holds the models {saved}, not {expected}")


def _step(path: Path) -> int | None:
    match = re.fullmatch(r"checkpoint-(\d+)", path.name)
    return int(match[1]) if match else None


def _whole_emas(trainers: list[ModelTrainer]) -> dict[str, dict[str, Tensor]]:
    """The averaged weights by name, put together where they are sharded."""
    return {
        trainer.name: {str(i): whole(w) for i, w in enumerate(trainer.ema.shadow_params)}
        for trainer in trainers
        if trainer.ema is not None
    }


def _write_own_state(folder: Path, emas: dict, trainers: list[ModelTrainer], step: int) -> None:
    state = {"step": step, "learners": {trainer.name: {} for trainer in trainers}}
    for trainer in trainers:
        if trainer.ema is not None:
            save_file(emas[trainer.name], folder / _ema_file(trainer))
            state["learners"][trainer.name]["ema_steps"] = trainer.ema.optimization_step
    (folder / STATE).write_text(json.dumps(state), encoding="utf-8")


def _load_ema(trainer: ModelTrainer, folder: Path, state: dict) -> None:
    weights = load_file(folder / _ema_file(trainer))
    for number, ema in enumerate(trainer.ema.shadow_params):
        saved = weights[str(number)].to(ema.device)
        if isinstance(ema, DTensor):
            saved = distribute_tensor(saved, ema.device_mesh, ema.placements)
        ema.copy_(saved)
    trainer.ema.optimization_step = state["ema_steps"]


def _ema_file(trainer: ModelTrainer) -> str:
    return f"ema-{trainer.name}.safetensors"
