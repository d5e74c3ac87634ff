"""Real evaluations by several processes (gloo), through the command line."""

import json
import os
import subprocess
import sys

import pytest
from safetensors.torch import load_file

from liftplace.cli import main
from liftplace.models.saving import save_pipeline
from tests.train.tiny import process, tiny_unet

SETTINGS = (
    "--reference_dir digits --metrics fd,kid,agreement --num_samples 300 "
    "--num_inference_steps 2 --feature_network torch.nn:Flatten --interval_draws 2"
)
LAUNCH = "-m torch.distributed.run --standalone --nproc_per_node 2"


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    for seed in (0, 1):
        save_pipeline(tiny_unet(seed=seed), process(), folder / str(seed))
    return folder


def flags(models, folder, *more):
    pair = ("--model", str(models / "0"), "--teacher", str(models / "1"))
    return [*pair, "--output_dir", str(folder), *SETTINGS.split(), *more]


def launch(arguments, cache, program=("-m", "liftplace")):
    environment = os.environ | {
        "ACCELERATE_USE_CPU": "true",
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
        "LIFTPLACE_CACHE": str(cache),
    }
    return subprocess.run(
        [sys.executable, *LAUNCH.split(), *program, "evaluate", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )


def evaluate_here(arguments, cache):
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as exited:
        patch.setenv("LIFTPLACE_CACHE", str(cache))
        main(["evaluate", *arguments])
    assert exited.value.code == 0


@pytest.fixture(scope="module")
def alone(models, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "alone"
    evaluate_here(flags(models, folder), folder.with_name("cache"))
    return folder


def test_two_processes_find_what_one_does(models, alone, tmp_path):
    done = launch(flags(models, tmp_path / "out"), tmp_path / "cache")
    assert done.returncode == 0, done.stderr
    ours, theirs = (json.loads((f / "results.json").read_text()) for f in (tmp_path / "out", alone))
    assert ours == theirs
    parts = sorted((tmp_path / "out" / "samples").iterdir())
    assert [part.name for part in parts] == [f"{number:05}.safetensors" for number in range(3)]
    for part in parts:
        assert part.read_bytes() == (alone / "samples" / part.name).read_bytes()
    assert len(load_file(parts[2])["features"]) == 300 - 2 * 128
    assert done.stdout.count("300 samples in 2 steps") == 1  # by the main process alone


def test_what_one_process_refuses_ends_all(models, alone, tmp_path):
    done = launch(flags(models, alone, "--seed", "1"), tmp_path / "cache")
    assert done.returncode != 0 and "seed is 0 there and 1 here" in done.stderr


FAILS = """
import sys
from liftplace.evaluate.evaluate import PartSampler
from liftplace.common.errors import NonFiniteError
sample = PartSampler.__call__

def fails(self, part):
    if part.first == 128:  # the second process's
        raise NonFiniteError("broken off")
    return sample(self, part)

PartSampler.__call__ = fails
from liftplace.cli import main
main(sys.argv[1:])
"""


def test_a_failure_of_one_process_ends_all_and_one_process_goes_on(models, alone, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(FAILS)
    out = tmp_path / "out"
    done = launch(flags(models, out), tmp_path / "cache", [str(script)])
    assert done.returncode != 0 and "broken off" in done.stderr
    assert not (out / "results.json").exists()
    evaluate_here(flags(models, out), tmp_path / "cache")
    ours, theirs = (json.loads((folder / "results.json").read_text()) for folder in (out, alone))
    assert ours["scores"] == theirs["scores"]
