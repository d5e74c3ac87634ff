"""Several processes that share a piece of work, as accelerate or torchrun starts them."""

import warnings
from collections.abc import Callable
from datetime import timedelta

import torch
from accelerate.state import PartialState
from accelerate.utils import broadcast_object_list, parse_flag_from_env

# How long to wait for the slowest process, which may be a whole part of the samples behind. torch's
# own ten minutes are too few for a part of large images.
PATIENCE = timedelta(hours=2)


def start_processes() -> PartialState:
    """The state of this process and of the others, if there are any."""
    with warnings.catch_warnings():  # accelerate's note on the threads that it chose
        warnings.filterwarnings("ignore", message="OMP_NUM_THREADS/MKL_NUM_THREADS unset")
        return PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU"), timeout=PATIENCE)


def device_of(state: PartialState) -> torch.device:
    """The process's device; the CPU where its device has no float64, which scores need."""
    return torch.device("cpu") if state.device.type == "mps" else state.device


def main_process_decides(state: PartialState, decide: Callable):
    """Calls `decide` on the main process, and returns its result on every process; an error that it
    raises there is raised on every process."""
    outcome = [None, None]
    if state.is_main_process:
        try:
            outcome[0] = decide()
        except (OSError, ValueError) as error:
            outcome[1] = error
    broadcast_object_list(outcome)
    if outcome[1] is not None:
        raise outcome[1]
    return outcome[0]
