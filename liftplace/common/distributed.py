"""Several processes that share a piece of work, as accelerate or torchrun starts them."""

import warnings
from collections.abc import Callable
from datetime import timedelta

import torch
from accelerate.state import PartialState
from accelerate.utils import broadcast_object_list, parse_flag_from_env

# How long a process waits for the slowest one, which may be a part of the samples behind. Torch's
# own ten minutes are too few for a part of large images.
TIMEOUT = timedelta(hours=2)


def distributed_state() -> PartialState:
    """This process and the others, if there are any: rank, world size, device."""
    with warnings.catch_warnings():  # accelerate's note on the threads that it chose
        warnings.filterwarnings("ignore", message="OMP_NUM_THREADS/MKL_NUM_THREADS unset")
        return PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU"), timeout=TIMEOUT)


def device_of(state: PartialState) -> torch.device:
    """The process's device; the CPU where that has no float64, which scores are computed in."""
    return torch.device("cpu") if state.device.type == "mps" else state.device


def main_process_decides(state: PartialState, decide: Callable):
    """Call `decide` on the main process; every process returns its result, or raises its error."""
    result_and_error = [None, None]
    if state.is_main_process:
        try:
            result_and_error[0] = decide()
        except (OSError, ValueError) as error:
            result_and_error[1] = error
    broadcast_object_list(result_and_error)
    result, error = result_and_error
    if error is not None:
        raise error
    return result
