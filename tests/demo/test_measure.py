import torch

from liftplace.data import load_dataset
from liftplace.data.encoder import Encoder
from liftplace.demo.measure import demo_evaluator, measure
from liftplace.demo.settings import DemoSettings
from liftplace.evaluate.sampling import Sampler
from liftplace.evaluate.subsets import spread
from liftplace.models.loading import LoadedModel
from liftplace.models.noise import NoiseProcess
from tests.train.tiny import tiny_unet


def new_model(seed):
    return tiny_unet(seed, sample_size=16).eval()


def test_the_floor_is_near_and_noise_is_far(tmp_path):
    train, held_out = (
        load_dataset("digits", resolution=16, split=split) for split in ("train", "test")
    )
    evaluator = demo_evaluator(train, held_out, 40, tmp_path)
    assert evaluator.floor.num_images == 40 and evaluator.floor.num_components == 39
    noise = torch.rand(40, 1, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert evaluator.score_images(noise).fd_lite0 > 3 * evaluator.floor.fd_lite0
    of_training = evaluator.score_images(train.images(spread(4000, 40)))
    assert abs(of_training.kid - evaluator.floor.kid) < 1e-3
    assert len(list(tmp_path.iterdir())) == 2


def test_every_model_starts_from_the_teachers_noise(tmp_path):
    train, held_out = (
        load_dataset("digits", resolution=16, split=split) for split in ("train", "test")
    )
    settings = DemoSettings(num_samples=8, num_inference_steps=2)
    models = {"teacher": new_model(0), "copy": new_model(0), "other": new_model(1)}
    labels = {name: name for name in models}
    evaluator = demo_evaluator(train, held_out, 8, tmp_path)
    encoder = Encoder(LoadedModel(models["teacher"], None, "no folder"))
    sampler = Sampler(NoiseProcess.new("epsilon"), encoder)
    measured, samples = measure(models, labels, sampler, evaluator, settings)
    assert torch.equal(samples["teacher"], samples["copy"])
    assert measured["copy"].agreement.pixel_error == 0
    assert measured["other"].agreement.pixel_error > 0
    assert measured["copy"].scores == measured["teacher"].scores
    assert measured["other"].parameters == sum(p.numel() for p in models["other"].parameters())
