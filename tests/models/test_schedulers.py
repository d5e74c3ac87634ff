"""Every scheduler that diffusers can save: the samples are those of the teacher's own, or it is
refused in one line."""

import inspect
import json

import diffusers
import pytest
import torch
from diffusers.utils import is_torchsde_available

from liftplace.common.errors import UsageError
from liftplace.evaluate.sampling import sample_images
from liftplace.models.noise import DDPM_FAMILY, NoiseProcess
from tests.families.tiny import tiny_model

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # diffusers' of NumPy
SAMPLES, STEPS = 64, 40
SHAPE = (3, 8, 8)
MEAN, SPREAD = 0.4, 1.3  # of what is drawn; beyond [-1, 1], as latents are
CLASSES = {
    name: kind
    for name in dir(diffusers)
    if name.endswith("Scheduler") and inspect.isclass(kind := getattr(diffusers, name))
}
REFUSED = sorted(CLASSES.keys() - DDPM_FAMILY - {"FlowMatchEulerDiscreteScheduler"})
CHANGES = [
    {},
    {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "steps_offset": 1},
    {"beta_schedule": "squaredcos_cap_v2", "prediction_type": "v_prediction"},
    {"timestep_spacing": "trailing", "rescale_betas_zero_snr": True,
     "prediction_type": "v_prediction"},
    {"clip_sample": False, "prediction_type": "sample"},
]  # fmt: skip


def denoiser(alphas, prediction_type):
    """What a model of N(MEAN, SPREAD^2) predicts: exact."""

    def predict(model, noisy, timesteps, conditions):
        abar = alphas[timesteps.long()].view(-1, 1, 1, 1)
        signal, noise = abar.sqrt(), (1 - abar).sqrt()
        gain = signal * SPREAD**2 / (abar * SPREAD**2 + 1 - abar)
        clean = MEAN + gain * (noisy - signal * MEAN)
        if prediction_type == "sample":
            return clean
        if prediction_type == "v_prediction":
            return (signal * noisy - clean) / noise.clamp(min=1e-4)
        return (noisy - signal * clean) / noise

    return predict


def with_own(scheduler, predict):
    """Samples as the loop of a diffusers pipeline makes them, not clipped at the end."""
    generator = torch.Generator().manual_seed(0)
    scheduler.set_timesteps(STEPS)
    images = torch.randn(SAMPLES, *SHAPE, generator=generator) * scheduler.init_noise_sigma
    for timestep in scheduler.timesteps:
        scaled = scheduler.scale_model_input(images, timestep)
        output = predict(None, scaled, timestep.expand(SAMPLES), {})
        images = scheduler.step(output, timestep, images).prev_sample
    return images


def saved(scheduler, folder, left_out=()):
    """The scheduler's file as a dict, without some keys."""
    scheduler.save_pretrained(folder)
    config = json.loads((folder / "scheduler_config.json").read_text())
    return {name: value for name, value in config.items() if name not in left_out}


@pytest.mark.parametrize("changes", CHANGES, ids=lambda each: "-".join(map(str, each.values())))
@pytest.mark.parametrize("name", sorted(DDPM_FAMILY))
def test_samples_are_those_of_the_teachers_own_scheduler(name, changes, tmp_path):
    if name == "DPMSolverSDEScheduler" and not is_torchsde_available():
        with pytest.raises(UsageError, match="torchsde"):
            NoiseProcess({"_class_name": name})
        return
    kind = CLASSES[name]
    known = inspect.signature(kind.__init__).parameters
    own = kind(**{key: value for key, value in changes.items() if key in known})
    process = NoiseProcess(saved(own, tmp_path))
    abar, found = process.scheduler.alphas_cumprod, []
    predict = denoiser(abar, own.config.prediction_type)
    sample_images(
        tiny_model("UNet2DModel"), process.sampler(), num_samples=SAMPLES,
        num_inference_steps=STEPS, description=None, denoise=predict,
        decode=lambda images: found.append(images) or images,
    )  # fmt: skip
    torch.manual_seed(0)  # of schedulers that add noise of their own
    try:
        expected = with_own(own, predict)
    except (NotImplementedError, ValueError) as error:
        assert "prediction_type" in str(error)  # which only others of the family can sample
        expected = None
    samples = torch.cat(found)
    clipped = bool((samples.abs() <= 1).all())
    # Some classes miss the truth, and a clipped path with noise of its own ends nearer to 0.
    assert off(samples.mean(), expected, torch.mean, MEAN, clipped) < 0.06
    assert off(samples.std(), expected, torch.std, SPREAD, clipped) < (0.08 if clipped else 0.06)


def off(value, expected, statistic, truth, clipped) -> float:
    """How far it is from that of the teacher's own samples; or from the truth, if that is less."""
    distances = [] if expected is None else [abs(value - statistic(expected))]
    return min(distances + ([] if clipped else [abs(value - truth)])).item()


@pytest.mark.parametrize("name", REFUSED)
def test_every_other_scheduler_is_refused_in_one_line(name):
    with pytest.raises(
        UsageError, match=rf"the scheduler {name} is not supported: its model"
    ) as error:
        NoiseProcess({"_class_name": name})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "setting", "value"),
    [
        ("EulerDiscreteScheduler", "timestep_type", "continuous"),
        ("DPMSolverMultistepScheduler", "use_flow_sigmas", True),
        ("FlowMatchEulerDiscreteScheduler", "invert_sigmas", True),
        ("DDIMScheduler", "beta_schedule", "nonsense"),
    ],
)
def test_settings_that_change_the_question_are_refused(name, setting, value):
    with pytest.raises(UsageError, match=f"{name}.*{setting if value != 'nonsense' else value}"):
        NoiseProcess({"_class_name": name, setting: value})


def test_what_a_file_leaves_out_is_its_own_class_s(tmp_path):
    own = diffusers.UniPCMultistepScheduler()
    whole = NoiseProcess(saved(own, tmp_path))
    short = NoiseProcess({"_class_name": "UniPCMultistepScheduler"})
    assert short.sampler().config.timestep_spacing == own.config.timestep_spacing == "linspace"
    assert not short.sampler().config.clip_sample
    assert torch.equal(short.scheduler.alphas_cumprod, whole.scheduler.alphas_cumprod)


def test_a_sigmoid_schedule_is_sampled():
    process = NoiseProcess.new("epsilon", beta_schedule="sigmoid")
    assert torch.allclose(process.sampler().alphas_cumprod, process.scheduler.alphas_cumprod)
