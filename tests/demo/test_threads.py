import pytest
import torch

from liftplace.demo.threads import choose_num_threads


@pytest.fixture(autouse=True)
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


class Machine:
    """A step that takes a known time for each number of threads, and the clock of that time."""

    def __init__(self, seconds):
        self.seconds, self.now = seconds, 0.0

    def step(self):
        self.now += self.seconds[torch.get_num_threads()]

    def clock(self):
        return self.now


@pytest.mark.parametrize(
    ("seconds", "chosen"),
    [
        pytest.param({1: 1.0, 2: 0.6}, 2, id="idle"),
        pytest.param({1: 1.0, 2: 15.0}, 1, id="busy"),
        pytest.param({1: 1.0, 2: 0.95}, 1, id="tie"),
    ],
)
def test_the_clearly_faster_number_wins(seconds, chosen):
    machine = Machine(seconds)
    assert choose_num_threads(machine.step, clock=machine.clock) == chosen
    assert torch.get_num_threads() == chosen


def test_one_thread_is_not_measured():
    torch.set_num_threads(1)
    assert choose_num_threads(lambda: pytest.fail("measured")) == 1
