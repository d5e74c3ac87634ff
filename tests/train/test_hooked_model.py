import pytest
import torch

from liftplace.families import families
from liftplace.models.noise import NoisyBatch
from liftplace.train.hooked_model import Teacher
from tests.families.tiny import tiny_model

CPU = torch.device("cpu")


def batch_for(name, config) -> NoisyBatch:
    noisy, timesteps, conditions = families()[name].example(config, batch=2)
    return NoisyBatch(noisy, timesteps, noisy, conditions=conditions)


@pytest.mark.parametrize("name", families())
def test_answers_are_the_model_s_without_grad(name):
    model = tiny_model(name)
    batch = batch_for(name, model.config)
    block = list(families()[name].blocks(model))[1]
    answer = Teacher(model, CPU, blocks=[block])(batch)
    output = families()[name].predict(model, batch.noisy, batch.timesteps, batch.conditions)
    channels = batch.noisy.shape[1]
    assert torch.equal(answer.output, output[:, :channels])
    assert (answer.variance is None) == (output.shape[1] == channels)
    assert list(answer.features) == [block]
    assert not answer.output.requires_grad and not answer.features[block].requires_grad
    assert not any(weight.requires_grad for weight in model.parameters())
    assert not model.training


@pytest.mark.parametrize("name", families())
def test_low_precision(name):
    model = tiny_model(name)
    batch = batch_for(name, model.config)
    exact = Teacher(model, CPU)(batch).output
    rough = Teacher(model, CPU, "bf16")(batch).output
    assert rough.dtype == torch.bfloat16
    assert batch.noisy.dtype == torch.float32
    torch.testing.assert_close(rough.float(), exact, rtol=0.1, atol=0.1 * exact.std().item())


def test_labels_are_not_dropped_though_the_model_was_in_training_mode():
    model = tiny_model("DiTTransformer2DModel").train()
    teacher = Teacher(model, CPU)
    batch = batch_for("DiTTransformer2DModel", model.config)
    answers = [teacher(batch).output for _ in range(8)]
    assert all(torch.equal(answers[0], answer) for answer in answers)
