from dataclasses import fields

from liftplace.demo.settings import FAST, FULL


def test_fast_differs_in_amounts_alone():
    changed = {
        field.name
        for field in fields(FULL)
        if getattr(FULL, field.name) != getattr(FAST, field.name)
    }
    assert changed == {
        "max_train_steps",
        "lr_warmup_steps",
        "num_samples",
        "num_inference_steps",
    }
    assert all(getattr(FAST, name) < getattr(FULL, name) for name in changed)


def test_the_trainer_is_given_every_setting():
    config = FULL.distill_config("run", loss="place")
    for name in ("seed", "train_batch_size", "max_train_steps", "learning_rate", "lr_warmup_steps"):
        assert getattr(config, name) == getattr(FULL, name)
    assert config.output_dir == "run" and config.use_ema and config.report_to == "none"
    assert config.loss == "place"
