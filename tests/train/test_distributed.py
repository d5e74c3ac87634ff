"""Real runs of several processes (gloo), through the command line.

torchrun starts them, because accelerate launch starts several on a CPU only through MPI."""

import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.state import AcceleratorState
from safetensors.torch import load_file

from liftplace.cli import main
from liftplace.models.saving import save_pipeline
from liftplace.train.run_folder import read_metrics
from tests.data.pictures import damage, save_images
from tests.train.tiny import process, tiny_unet

LAUNCH = "-m torch.distributed.run --standalone --nproc_per_node"
SETTINGS = (
    "--dataset_name digits --student_block_out_channels 4 4 --loss place --feature_weight 0.1 "
    "--max_train_steps 4 --checkpointing_steps 2 --logging_steps 1 --learning_rate 1e-2 "
    "--lr_warmup_steps 0 --use_ema --random_flip --report_to none --gradient_share_steps 2 "
    "--evaluation_steps 4 --num_evaluation_samples 130 --evaluation_metrics fd "
    "--num_inference_steps 2 --metric_for_best_model fd "
    "--adam_epsilon 1e-3"  # or Adam makes steps of the rounding of gradients that are zero
)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "teacher"
    save_pipeline(tiny_unet(), process(), folder)
    return folder


class LaunchError(RuntimeError):
    """What processes that failed said on stderr."""


def arguments(teacher: Path, folder: Path, processes: int, *more: str) -> list[str]:
    """Of a run in batches of 8, split over the processes."""
    flags = f"--output_dir {folder} --train_batch_size {8 // processes} {SETTINGS}"
    teacher_flag = ["--pretrained_teacher_name_or_path", str(teacher)]
    return ["distill", *teacher_flag, *flags.split(), *more]


def launch(processes: int, program: list[str], flags: list[str], environment: dict) -> None:
    command = [sys.executable, *LAUNCH.split(), str(processes), *program, *flags]
    threads = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    environment = os.environ | environment | threads | {"CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise LaunchError(done.stderr)


def distill(teacher: Path, folder: Path, processes: int, *more: str) -> None:
    flags = arguments(teacher, folder, processes, *more)
    if processes > 1:
        launch(processes, ["-m", "liftplace"], flags, {"ACCELERATE_USE_CPU": "true"})
        return
    with pytest.raises(SystemExit) as exited:
        main(flags)
    assert exited.value.code == 0
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(scope="module")
def alone(teacher, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "alone"
    distill(teacher, folder, 1)
    return folder


@pytest.fixture(scope="module")
def together(teacher, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "together"
    distill(teacher, folder, 2, "--validation_steps", "4", "--num_validation_images", "2")
    return folder


def assert_same_files(folder, other, name):
    ours, theirs = load_file(folder / name), load_file(other / name)
    assert ours.keys() == theirs.keys()
    for key, value in ours.items():
        torch.testing.assert_close(value, theirs[key], rtol=1e-3, atol=1e-5)


def assert_same_run(folder, other):
    """Weights with adapters, averages, the final and the best model, and the metrics: the terms of
    the loss (w and so D), the shares of the gradient, the scores."""
    last = "checkpoint-4"
    assert any("adapters" in name for name in load_file(folder / last / "model.safetensors"))
    assert_same_files(folder / last, other / last, "model.safetensors")
    assert_same_files(folder / last, other / last, "ema-student.safetensors")
    assert_same_files(folder / "unet", other / "unet", "diffusion_pytorch_model.safetensors")
    assert_same_files(folder / "best/unet", other / "unet", "diffusion_pytorch_model.safetensors")
    assert_same_metrics(folder, other)


def assert_same_metrics(folder, other):
    lines = [read_metrics(each / "metrics.jsonl") for each in (folder, other)]
    assert [line["step"] for line in lines[0]] == [1, 2, 3, 4]
    for ours, theirs in zip(*lines, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-3)
        assert 0 < ours["weight"] < 1
        assert ("gradient_share/fine" in ours) == (ours["step"] in (2, 4))
    assert "evaluation/FD-Lite0" in lines[0][-1]


def test_two_processes_are_one_with_twice_the_batch(alone, together):
    assert_same_run(together, alone)
    assert {path.name for path in together.iterdir()} - {path.name for path in alone.iterdir()} == {
        "samples"
    }


def test_a_picture_that_one_process_cannot_read_ends_both_after_a_checkpoint(tmp_path):
    save_images(tmp_path / "images", [f"{number}.png" for number in range(4)])
    damage(tmp_path / "images" / "1.png")
    flags = (
        f"train --train_data_dir {tmp_path / 'images'} --output_dir {tmp_path / 'run'} "
        "--resolution 8 --block_out_channels 8 8 --norm_num_groups 4 --train_batch_size 1 "
        "--max_train_steps 20 --logging_steps 2 --lr_warmup_steps 0 --report_to none"
    )
    with pytest.raises(LaunchError) as error:
        launch(2, ["-m", "liftplace"], flags.split(), {"ACCELERATE_USE_CPU": "true"})
    said = [line for line in str(error.value).splitlines() if "liftplace: " in line]
    assert said and all("1.png" in line and "checkpoint-2 saved" in line for line in said)
    assert (tmp_path / "run" / "checkpoint-2" / "state.json").is_file()


@pytest.mark.parametrize(("first", "then"), [(2, 1), (1, 2)])
def test_resumed_on_another_number_of_processes(teacher, alone, together, tmp_path, first, then):
    run = tmp_path / "run"
    shutil.copytree(together if first == 2 else alone, run)
    shutil.rmtree(run / "checkpoint-4")  # as if it had been killed before
    shutil.rmtree(run / "unet")
    distill(teacher, run, then, "--resume_from_checkpoint", "latest")
    assert_same_run(run, alone)


# accelerate shards on accelerators only: this lets it take these processes for such.
AS_IF_ACCELERATED = """
import sys
from accelerate.state import PartialState
from accelerate.utils import DistributedType

PartialState(cpu=True)._shared_state["distributed_type"] = DistributedType.MULTI_GPU
from liftplace.cli import main
main(sys.argv[1:])
"""
SHARDED = {
    "fsdp": {
        "ACCELERATE_USE_FSDP": "true",
        "FSDP_VERSION": "2",
        "FSDP_RESHARD_AFTER_FORWARD": "true",
        "FSDP_STATE_DICT_TYPE": "FULL_STATE_DICT",
        "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
    },
}
if find_spec("deepspeed") is not None:  # in no extra: it needs a compiler, even on a CPU
    SHARDED["deepspeed"] = {
        "ACCELERATE_USE_DEEPSPEED": "true",
        "ACCELERATE_DEEPSPEED_ZERO_STAGE": "2",
        "DS_ACCELERATOR": "cpu",
    }


@pytest.mark.parametrize("kind", SHARDED)
def test_sharded_processes_are_one_with_twice_the_batch(teacher, alone, tmp_path, kind):
    script = tmp_path / "script.py"
    script.write_text(AS_IF_ACCELERATED)
    run = tmp_path / "run"
    launch(2, [str(script)], arguments(teacher, run, 2), SHARDED[kind])
    if kind == "fsdp":  # DeepSpeed keeps the gradients to itself
        assert_same_metrics(run, alone)
    assert_same_files(run / "unet", alone / "unet", "diffusion_pytorch_model.safetensors")
    shutil.rmtree(run / "checkpoint-4")
    shutil.rmtree(run / "unet")
    resume = arguments(teacher, run, 2, "--resume_from_checkpoint", "latest")
    launch(2, [str(script)], resume, SHARDED[kind])
    assert_same_files(run / "unet", alone / "unet", "diffusion_pytorch_model.safetensors")


@pytest.mark.parametrize("kind", ["ddp", "fsdp", "deepspeed"])
def test_documented_configs_are_accelerates(kind):
    file = Path(__file__).parents[2] / "docs" / "accelerate" / f"{kind}.yaml"
    config = load_config_from_file(str(file))  # which refuses names that it does not know
    assert config.distributed_type.value == kind.replace("ddp", "multi_gpu").upper()
