import torch

from liftplace.demo.methods import MAPPED, METHODS, new_timed_trainers
from liftplace.demo.settings import DemoSettings
from tests.train.tiny import tiny_unet


def test_learners_differ_in_their_objective_alone():
    teacher = tiny_unet()
    settings = DemoSettings(student_block_out_channels=(4, 8), kd_weight=0.5, group_size=32)
    learners = new_timed_trainers(teacher, settings, settings.run_config("run"))
    assert [each.name for each in learners] == ["none", "mse", "lift", "place"]
    assert [each.objective.loss for each in learners] == [method.loss for method in METHODS]
    assert {each.objective.kd_weight for each in learners} == {0.5}
    assert learners[-1].name == MAPPED and learners[-1].objective.group_size == 32
    first = learners[0]
    for each in learners[1:]:
        assert each.optimizer.defaults == first.optimizer.defaults
        for ours, theirs in zip(each.parameters, first.parameters, strict=True):
            assert torch.equal(ours, theirs) and ours is not theirs
