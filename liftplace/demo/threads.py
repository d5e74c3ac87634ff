"""How many threads torch should use on a machine that may be busy."""

import time
from collections.abc import Callable

import torch


def choose_num_threads(
    step: Callable[[], object],
    *,
    repeats: int = 3,
    clock: Callable[[], float] = time.perf_counter,
) -> int:
    """Sets torch to one thread or to as many as it has now, whichever runs ``step`` faster.

    Threads of one step wait for each other: on two cores, one other busy process can make two
    threads many times slower than one. So it is measured, and one thread wins a near tie.

    Returns:
        The number of threads, which torch now uses.
    """
    most = torch.get_num_threads()
    if most == 1:
        return 1
    seconds = {}
    for threads in (1, most):
        torch.set_num_threads(threads)
        step()  # the first is slower
        start = clock()
        for _ in range(repeats):
            step()
        seconds[threads] = clock() - start
    chosen = most if seconds[most] < 0.9 * seconds[1] else 1
    torch.set_num_threads(chosen)
    return chosen
