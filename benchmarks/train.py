"""python -m benchmarks train: steps a second of the trainer on small models.

The demo's teacher and students of 2.9 and 31 % of it on 16 x 16 digits: a step so small that a GPU
waits for Python, unless the step is recorded or compiled. All ways of running it take turns in one
run. What is timed is `train_step`, with its batches; not logging, checkpoints and samples.
"""

import argparse
import importlib.util
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from torch._dynamo.exc import TorchDynamoException

from benchmarks import flags, report, results, timing
from benchmarks.environment import environment
from liftplace.common.errors import UsageError

COLUMNS = (
    *results.WHERE,
    *"student parameters share loss train_batch_size precision mode data repeats".split(),
    *"steps_a_repeat ms_p20 ms_p50 ms_p80 steps_per_second".split(),
    *"ratio_p20 ratio_p50 ratio_p80".split(),
)
TEACHER = Path(__file__).parents[1] / "liftplace" / "demo" / "teacher"
_RUN = ("device", "threads", "student", "loss", "train_batch_size", "precision", "mode", "data")
# Channels, and norm groups.
STUDENTS = {"2.9 %": ((12, 8, 8), 4), "31 %": ((32, 32, 32), 8)}
MODES = {
    "eager": {},
    "cuda_graphs": {"cuda_graphs": True},
    "compile": {"compile": True},
    "compile+cuda_graphs": {"compile": True, "cuda_graphs": True},
}
DATA = {"loader": "never", "on device": "always"}  # --dataset_on_device
BASELINE = ("eager", "loader")
FOREVER = 10**9  # steps: no run ends while it is timed


def add_flags(parser: argparse.ArgumentParser) -> None:
    flags.timed(parser, repeats=20)
    flags.threads(parser)
    add, modes = parser.add_argument, "beside eager (default: all; cpu: none)"
    add("--students", nargs="+", choices=STUDENTS, default=list(STUDENTS))
    add("--modes", nargs="+", choices=MODES, default=None, help=modes)
    add("--loss", choices=("none", "mse", "lift", "place"), default="place")
    add("--precision", choices=("no", "bf16"), default="no")
    add("--train_batch_size", type=flags.count, default=16)
    add("--steps", type=flags.count, default=20, help="of a timed round")


def main(options: argparse.Namespace) -> int:
    if importlib.util.find_spec("diffusers") is None:
        raise UsageError('the trainer needs more packages: run `pip install "liftplace[demo]"`')
    torch.set_num_threads(options.threads)
    where = environment(options.device, options.commit) | {"threads": str(options.threads)}
    path = options.out / f"train_{options.device}.csv"
    for student in options.students:
        rows, skipped = measure(student, where, options)
        results.keep(path, COLUMNS, _RUN, rows, skipped)
    print(f"{report.training(options.out, options.device)}\n{results.origin(where, path)}")
    return 0


def measure(student: str, where: dict[str, str], options) -> tuple[list[dict], dict[str, str]]:
    """Rows of one student in every way, timed in turn; and why something is missing from them."""
    torch.compiler.reset()
    contenders, skipped, runs = [], {}, {}
    for mode in modes(options):
        for data in DATA:
            try:
                runs[mode, data] = run = make_run(student, mode, data, options)
                sample = _sampler(run.step, options)
                sample()  # compiles, records
            except (RuntimeError, ValueError, TorchDynamoException) as error:
                if (mode, data) == BASELINE:
                    raise
                skipped[f"{student}, {mode}, {data}"] = results.reason(error)
                continue
            contenders.append(timing.Contender(mode, data, "", sample))
    print(f"{student}: time", file=sys.stderr)
    samples = timing.interleave(contenders, options.repeats)
    baseline = _ms(samples[*BASELINE, ""])
    shared = where | _model(student, runs[BASELINE]) | {"steps_a_repeat": options.steps}
    shared |= {name: getattr(options, name) for name in ("loss", "train_batch_size", "precision")}
    return [
        _row(shared, mode, data, _ms(of_run), baseline)
        for (mode, data, _), of_run in samples.items()
    ], skipped


def modes(options) -> list[str]:
    """Those asked for, the baseline first; by default all that the device has, but on a CPU no
    compilation, which takes minutes."""
    default = list(MODES) if options.device == "cuda" else ["eager"]
    return list(dict.fromkeys(["eager", *(options.modes or default)]))


def make_run(student: str, mode: str, data: str, options) -> SimpleNamespace:
    """A run of the trainer in one way: its parts, and `step()`, which takes one optimiser step."""
    from accelerate import Accelerator

    from liftplace.data import load_dataset
    from liftplace.data.batches import noisy_batches
    from liftplace.data.encoder import Encoder
    from liftplace.models.loading import load_model
    from liftplace.models.shrink import shrink
    from liftplace.train.hooked_model import Teacher
    from liftplace.train.loop import train_step
    from liftplace.train.objective import Objective
    from liftplace.train.run_config import RunConfig
    from liftplace.train.trainer import ModelTrainer, TrainerSpec

    settings = {"train_batch_size": options.train_batch_size, "dataset_on_device": DATA[data]}
    settings |= {"mixed_precision": options.precision, "max_train_steps": FOREVER}
    config = RunConfig(use_ema=True, **settings, **MODES[mode])
    precision, on_cpu = config.mixed_precision, options.device == "cpu"
    accelerator = Accelerator(
        cpu=on_cpu, mixed_precision=precision, step_scheduler_with_optimizer=False
    )
    loaded = load_model(TEACHER)
    channels, groups = STUDENTS[student]
    made = shrink(loaded.model.config, channels, norm_num_groups=groups)
    trainer = ModelTrainer(TrainerSpec(made, Objective(options.loss), config), accelerator)
    faster = config.compile, config.cuda_graphs
    teacher = Teacher(loaded.model, accelerator.device, precision, (), *faster)
    dataset = load_dataset("digits", resolution=loaded.model.config.sample_size)
    encoder = Encoder(loaded).to(accelerator.device)
    batches = noisy_batches(dataset, encoder, loaded.process(), config, accelerator, 0)
    numbers = iter(range(1, FOREVER))

    def step():
        return train_step([trainer], batches, teacher, config, next(numbers))

    return SimpleNamespace(trainer=trainer, teacher=loaded.model, step=step)


def _sampler(step: Callable[[], object], options) -> Callable[[], dict[str, float]]:
    """ms a step, as the clock on the wall has it: the host's work counts where the GPU waits."""
    wait = torch.cuda.synchronize if options.device == "cuda" else lambda: None

    def sample():
        wait()
        start = time.perf_counter()
        for _ in range(options.steps):
            step()
        wait()
        return {"step": 1e3 * (time.perf_counter() - start) / options.steps}

    return sample


def _model(student: str, run: SimpleNamespace) -> dict:
    models = (run.trainer.model, run.teacher)
    own, teachers = (sum(weight.numel() for weight in model.parameters()) for model in models)
    return {"student": student, "parameters": own, "share": own / teachers}


def _ms(samples: list[dict[str, float]]) -> np.ndarray:
    return np.array([sample["step"] for sample in samples])


def _row(shared: dict, mode: str, data: str, ms: np.ndarray, baseline: np.ndarray) -> dict:
    """ratio: the time of the eager step with a loader over this one's, by round."""
    row = shared | {"mode": mode, "data": data, "repeats": len(ms)} | results.percentiles("ms", ms)
    row["steps_per_second"] = 1e3 / row["ms_p50"]
    return row | results.percentiles("ratio", baseline / ms)
