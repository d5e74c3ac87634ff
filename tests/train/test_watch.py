import pytest
import torch
from accelerate import Accelerator

from liftplace.train import NonFiniteError
from liftplace.train.watch import WATCHED, Watch

FINE = {name: torch.tensor(1.0) for name in WATCHED}
NAN, INF = torch.tensor(torch.nan), torch.tensor(torch.inf)


@pytest.fixture
def watch():
    return Watch(Accelerator(), "small")


def test_the_first_step_is_blamed_and_in_it_the_part_before_what_is_made_of_it(watch):
    watch.note(FINE, 1)
    watch.check()
    watch.note(FINE | {"loss": NAN, "coarse": INF, "gradient_norm": NAN}, 2)
    watch.note(FINE | {"task": NAN}, 3)
    with pytest.raises(NonFiniteError, match="^step 2: coarse of small is not finite$"):
        watch.check()


def test_metrics_that_a_learner_has_not_or_that_nobody_watches_are_no_matter(watch):
    watch.note({"task": FINE["task"], "else": NAN}, 1)
    watch.check()


def test_gradients_of_float16_may_overflow_because_the_scaler_skips_their_step(watch):
    watch._accelerator.scaler = torch.amp.GradScaler("cpu")
    watch.note(FINE | {"gradient_norm": INF}, 1)
    watch.check()
    watch.note(FINE | {"task": INF}, 2)
    with pytest.raises(NonFiniteError, match="step 2: task"):
        watch.check()
