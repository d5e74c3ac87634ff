import pytest
import torch
from accelerate import Accelerator

from liftplace.train import NonFiniteError, fit
from liftplace.train.metrics import read_metrics
from liftplace.train.watch import WATCHED, Watch
from tests.train.tiny import (
    Disturbed,
    assert_same_weights,
    checkpoints,
    config_for,
    encoder,
    learner_for,
    process,
    run,
    tiny_unet,
)

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


def make_nan(item):
    return {"images": item["images"] * torch.nan}


def test_non_finite_loss_stops_and_is_never_saved(tmp_path, digits):
    # Logged every 10 steps only, so the checkpoint of step 6 is what would save the NaN.
    with pytest.raises(
        NonFiniteError,
        match="^step 5: task of place is not finite; the last good checkpoint is .*/checkpoint-3$",
    ):
        run(tmp_path, Disturbed(digits, 5, make_nan), logging_steps=10)
    assert checkpoints(tmp_path) == ["checkpoint-3"]
    assert read_metrics_if_any(tmp_path) == []


def test_the_others_go_on_without_one_that_fails(tmp_path, digits):
    def learners(config):
        return [
            learner_for(config, "none"),
            learner_for(config, "mse"),
            learner_for(config, "lift"),
        ]

    config = config_for(tmp_path / "all")
    spoilt, *rest = learners(config)

    def spoil(item):
        spoilt.parameters[0].data.fill_(torch.nan)

    kinds = {"encoder": encoder(), "process": process(), "teacher": tiny_unet()}
    disturbed = Disturbed(digits, 3, spoil)
    failed = fit([spoilt, *rest], dataset=disturbed, config=config, keep_going=True, **kinds)
    assert list(failed) == ["none"]
    assert "step 3: task of none is not finite" in str(failed["none"])
    alone = config_for(tmp_path / "alone")
    _, *undisturbed = learners(alone)
    assert fit(undisturbed, dataset=digits, config=alone, keep_going=True, **kinds) == {}
    for ours, theirs in zip(rest, undisturbed, strict=True):
        assert_same_weights(ours.model, theirs.model)
    lines = read_metrics(tmp_path / "all" / "metrics.jsonl")
    assert "none/task" in lines[1] and "none/task" not in lines[-1] and "mse/task" in lines[-1]


def test_nothing_goes_on_when_all_have_failed(tmp_path, digits):
    config = config_for(tmp_path)
    learner = learner_for(config, "none")
    disturbed = Disturbed(digits, 2, make_nan)
    failed = fit([learner], dataset=disturbed, encoder=encoder(), process=process(), config=config,
                 keep_going=True)  # fmt: skip
    assert list(failed) == ["none"]
    assert len(read_metrics(tmp_path / "metrics.jsonl")) <= 2
    assert checkpoints(tmp_path) == []


def read_metrics_if_any(folder):
    file = folder / "metrics.jsonl"
    return read_metrics(file) if file.exists() else []


def test_the_term_at_fault_is_named(tmp_path, digits):
    teacher = tiny_unet()
    torch.nn.init.constant_(teacher.conv_out.bias, torch.inf)
    with pytest.raises(
        NonFiniteError, match="^step 1: coarse of place .* last good checkpoint is none$"
    ):
        run(tmp_path, digits, teacher=teacher)


def test_average_that_is_not_finite_is_not_saved(tmp_path, digits):
    config = config_for(tmp_path)
    learner = learner_for(config, "none")

    def spoil(item):
        learner.ema.shadow_params[0].fill_(torch.nan)

    with pytest.raises(NonFiniteError, match="^step 3: a weight of none is not finite"):
        fit([learner], dataset=Disturbed(digits, 2, spoil), encoder=encoder(), process=process(),
            config=config)  # fmt: skip
    assert checkpoints(tmp_path) == []
