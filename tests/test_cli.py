"""The command line, called as the script calls it; bad input as the issue lists it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from accelerate.state import AcceleratorState
from PIL import Image

import liftplace
from liftplace.cli import main
from liftplace.models.loading import load_model
from liftplace.models.noise import NoiseProcess
from liftplace.models.saving import save_pipeline
from liftplace.train.run_folder import read_metrics
from tests.train.tiny import process, tiny_unet

OLD_RUN = Path(__file__).parent / "old" / "run"


@pytest.fixture(autouse=True)
def _new_accelerator():
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "teacher"
    save_pipeline(tiny_unet(), process(), folder)
    return str(folder)


@pytest.fixture
def distill(teacher, tmp_path):
    """The arguments of a short run, with changes; None leaves a flag out."""

    def arguments(**changes):
        flags = {
            "pretrained_teacher_name_or_path": teacher,
            "student_block_out_channels": "4 4",
            "dataset_name": "digits",
            "output_dir": str(tmp_path / "run"),
            "train_batch_size": 4,
            "max_train_steps": 2,
            "logging_steps": 1,
            "report_to": "none",
        } | changes
        given = {name: value for name, value in flags.items() if value is not None}
        return ["distill", *(x for n, v in given.items() for x in (f"--{n}", *str(v).split()))]

    return arguments


def call(capsys, argv) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as exited:
        main([str(argument) for argument in argv])
    captured = capsys.readouterr()
    return exited.value.code, captured.out, captured.err


def files(folder) -> dict:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_help_and_version(capsys):
    for argv in ([], ["--help"]):
        code, out, _ = call(capsys, argv)
        assert code == 0
        for command in (
            "demo",
            "prune",
            "encode",
            "distill",
            "train",
            "sample",
            "evaluate",
            "report",
        ):
            assert f"  {command} " in out
    assert call(capsys, ["--version"])[:2] == (0, f"liftplace {liftplace.__version__}\n")


@pytest.mark.parametrize(
    ("command", "flags"),
    [
        ("demo", ["--output_dir", "--fast"]),
        ("train", ["--block_out_channels", "--prediction_type", "--config", "--use_ema"]),
        ("distill", ["--pretrained_teacher_name_or_path", "--preset", "--resume_from_checkpoint"]),
        ("prune", ["--width", "--drop_blocks", "--keep_layers", "--depth", "--random_init"]),
        ("encode", ["--pretrained_teacher_name_or_path", "--shard_size"]),
        ("evaluate", ["--model", "--reference_dir", "--metrics", "--teacher"]),
        ("report", ["RUN", "--output_dir"]),
        ("sample", ["--model", "--num_inference_steps", "--prompts", "--class_labels"]),
    ],
)
def test_help_of_a_command_lists_its_flags(capsys, command, flags):
    code, out, _ = call(capsys, [command, "--help"])
    assert code == 0
    for flag in flags:
        assert flag in out


def test_help_waits_for_no_model_library():
    script = (
        "import sys\nfrom liftplace.cli import main\n"
        "for command in ('prune', 'encode', 'distill', 'train', 'sample', 'evaluate', 'report'):\n"
        "    try:\n        main([command, '--help'])\n"
        "    except SystemExit as stop:\n        assert stop.code == 0\n"
        "assert not {'diffusers', 'accelerate', 'matplotlib'} & sys.modules.keys()\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_path_to_nowhere_waits_for_no_model_library(tmp_path):
    """Nor for torch's own modules that training needs; each command names the path."""
    new = ["--output_dir", str(tmp_path / "new")]
    teacher = ["--pretrained_teacher_name_or_path", "/no/where"]
    commands = [
        ["prune", "--width", "0.5", *teacher, *new],
        [
            "distill",
            "--dataset_name",
            "digits",
            "--student_block_out_channels",
            "4",
            *teacher,
            *new,
        ],
        ["train", "--resolution", "8", "--train_data_dir", "/no/where", *new],
        ["encode", "--dataset_name", "digits", *teacher, *new],
        ["sample", "--model", "/no/where", "--output", str(tmp_path / "new.png")],
        ["evaluate", "--model", "/no/where", "--reference_dir", "digits", *new],
        ["analyze", "--teacher", "a/b", "--student", "/no/where", "--data", "digits", *new],
    ]
    script = (
        "import sys\nfrom liftplace.cli import main\n"
        f"for command in {commands}:\n"
        "    try:\n        main(command)\n"
        "    except SystemExit as stop:\n        assert stop.code == 2\n"
        "assert not {'diffusers', 'accelerate', 'matplotlib'} & sys.modules.keys()\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("liftplace: no folder /no/where: give") == len(commands)


@pytest.mark.parametrize("argv", [["--help"], ["prune", "--help"], ["report"]])
def test_a_closed_output_ends_it_quietly(argv, tmp_path):
    run = ["report", str(OLD_RUN), "--output_dir", str(tmp_path / "report")]
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "liftplace", *(run if argv[0] == "report" else argv)]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert done.returncode == 141
    assert "Broken" not in done.stderr and "Traceback" not in done.stderr


def test_distil_then_sample(capsys, distill, tmp_path):
    code, out, _ = call(capsys, distill())
    assert code == 0
    assert f'DDPMPipeline.from_pretrained("{tmp_path / "run"}")' in out
    grid = tmp_path / "grid.png"
    sample = ["sample", "--model", tmp_path / "run", "--output", grid, "--num_samples", 4]
    code, out, _ = call(capsys, [*sample, "--num_inference_steps", 2])
    assert code == 0 and str(grid) in out
    assert Image.open(grid).size[0] > 16


def test_pictures_of_nan_are_not_written(capsys, tmp_path):
    zero_snr = NoiseProcess(
        {"rescale_betas_zero_snr": True, "clip_sample": False, "timestep_spacing": "trailing"}
    )
    save_pipeline(tiny_unet(), zero_snr, tmp_path / "model")
    sample = ["sample", "--model", tmp_path / "model", "--output", tmp_path / "grid.png"]
    code, _, err = call(capsys, [*sample, "--num_inference_steps", 2, "--num_samples", 2])
    assert code == 1 and "makes samples with NaN or infinity in them" in err
    assert not (tmp_path / "grid.png").exists()


def test_more_steps_than_the_process_has_are_refused(capsys, teacher, tmp_path):
    flags = ["--model", teacher, "--output", tmp_path / "x.png", "--num_inference_steps", 1001]
    code, _, err = call(capsys, ["sample", *flags])
    assert code == 2 and "has 1000 timesteps: give at most 1000" in err


def test_the_launchers_accumulation_divides_nothing(capsys, distill, monkeypatch, tmp_path):
    norms = []
    for number, steps in enumerate(("1", "4")):
        monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", steps)
        folder = tmp_path / str(number)
        code, _, _ = call(capsys, distill(output_dir=folder, max_train_steps=1, seed=3))
        assert code == 0
        norms.append(read_metrics(folder / "metrics.jsonl")[-1]["gradient_norm"])
    assert norms[0] == norms[1]


def test_train_from_scratch(capsys, tmp_path):
    flags = "--dataset_name digits --resolution 8 --block_out_channels 8 8 --norm_num_groups 4"
    steps = "--max_train_steps 1 --train_batch_size 2 --report_to none --use_ema"
    code, _, _ = call(capsys, ["train", *flags.split(), *steps.split(), "--output_dir",
                               tmp_path / "run"])  # fmt: skip
    assert code == 0
    assert load_model(tmp_path / "run").model.config.block_out_channels == [8, 8]


def test_flags_win_over_yaml(capsys, distill, tmp_path):
    file = tmp_path / "a.yaml"
    file.write_text("learning_rate: 1e-5\nloss: lift\nmax_train_steps: 7\nlr_scheduler: constant\n")
    assert call(capsys, [*distill(), "--config", file])[0] == 0
    lines = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert len(lines) == 2  # the flag's max_train_steps
    assert lines[0]["learning_rate"] == 1e-5 and "coarse" in lines[0]


def test_all_settings_may_be_in_yaml(capsys, distill, tmp_path):
    flags = distill()[1:]
    lines, name = [], None
    for word in flags:
        if word.startswith("--"):
            name = word[2:]
        elif name != "student_block_out_channels":
            lines.append(f"{name}: {word}")
    file = tmp_path / "a.yaml"
    file.write_text("\n".join([*lines, "student_block_out_channels: [4, 4]"]))
    assert call(capsys, ["distill", "--config", file])[0] == 0
    assert len(read_metrics(tmp_path / "run" / "metrics.jsonl")) == 2


def make_unet(folder, **changes):
    save_pipeline(tiny_unet(**changes), process(), folder)


def bad_class(folder):
    folder.mkdir()
    (folder / "config.json").write_text('{"_class_name": "AutoencoderKL"}')


def bad_image(folder):
    folder.mkdir()
    (folder / "cat.png").write_text("not an image")


MAKE = {
    "wide": lambda folder: make_unet(folder, sample_size=16),
    "colour": lambda folder: make_unet(folder, in_channels=3, out_channels=3),
    "vae": bad_class,
    "images": bad_image,
    "empty": lambda folder: folder.mkdir(),
    "a.yaml": lambda file: file.write_text("trian_batch_size: 3\n"),
}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pretrained_teacher_name_or_path": "@gone"}, "no folder {gone}"),
        ({"train_data_dir": "@gone", "dataset_name": None}, "no folder {gone}"),
        ({"train_data_dir": "@empty", "dataset_name": None}, "no image in {empty}"),
        ({"pretrained_teacher_name_or_path": "@empty"}, "{empty} holds no diffusers model"),
        ({"pretrained_teacher_name_or_path": "@vae"}, "{vae} is a AutoencoderKL, which is not su"),
        (
            {"student": "@wide", "student_block_out_channels": None},
            "sample_size is 16 in {wide} and 8 in {teacher}",
        ),
        (
            {"student": "@colour", "student_block_out_channels": None},
            "in_channels is 3 in {colour} and 1 in {teacher}",
        ),
        (
            {"train_data_dir": "@images", "dataset_name": None,
             "pretrained_teacher_name_or_path": "@colour"},
            "cannot read image {images}/cat.png",
        ),
        (
            {"train_data_dir": "@images", "dataset_name": None, "dataloader_num_workers": 1,
             "pretrained_teacher_name_or_path": "@colour"},
            "liftplace: cannot read image {images}/cat.png: not an image",
        ),
        ({"config": "@a.yaml"}, "no setting 'trian_batch_size'; the nearest is 'train_batch_size'"),
        ({"config": "@gone"}, "cannot read --config {gone}"),
        ({"output_dir": None}, "--output_dir is missing"),
        ({"train_batch_size": 0}, "train_batch_size must be at least 1, got 0"),
        ({"resume_from_checkpoint": "checkpoint-3"}, "has no checkpoint checkpoint-3"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line_and_exit_code_2(
    capsys, distill, teacher, tmp_path, changes, message
):
    paths = {name: tmp_path / name for name in (*MAKE, "gone")}
    for value in changes.values():
        if str(value)[1:] in MAKE:
            MAKE[value[1:]](paths[value[1:]])
    before = files(tmp_path)
    changes = {
        name: paths[value[1:]] if str(value).startswith("@") else value
        for name, value in changes.items()
    }
    code, _, err = call(capsys, distill(**changes))
    lines = [line for line in err.splitlines() if line and not line.startswith("Distilling:")]
    assert code == 2
    assert len(lines) == 1 and lines[0].startswith("liftplace: ")
    assert message.format(teacher=teacher, **paths) in lines[0]
    kept = files(tmp_path)
    assert {path: kept[path] for path in before} == before


def test_folder_of_another_run(capsys, distill, tmp_path):
    assert call(capsys, distill())[0] == 0
    before = files(tmp_path)
    for changes, message in [
        ({}, "holds another run: name a new folder, or continue that run"),
        (
            {"resume_from_checkpoint": "latest", "loss": "place"},
            "holds another run: its loss is mse, not place",
        ),
    ]:
        code, _, err = call(capsys, distill(**changes))
        assert code == 2 and message in err and err.count("\n") == 1
        assert files(tmp_path) == before


def test_sample_overwrites_nothing(capsys, teacher, tmp_path):
    (tmp_path / "grid.png").write_text("precious")
    code, _, err = call(capsys, ["sample", "--model", teacher, "--output", tmp_path / "grid.png"])
    assert code == 2 and "exists: name a new file" in err
    assert (tmp_path / "grid.png").read_text() == "precious"
    for name in ("grid.xyz", "grid"):
        code, _, err = call(capsys, ["sample", "--model", teacher, "--output", tmp_path / name])
        assert code == 2 and "no picture ends in" in err and err.count("\n") == 1
    code, _, err = call(
        capsys, ["sample", "--model", teacher, "--output", tmp_path / "gone" / "grid.png"]
    )
    assert code == 2 and f"there is no folder {tmp_path / 'gone'}" in err
    code, _, err = call(capsys, ["sample", "--model", teacher, "--num_samples", 0])
    assert code == 2 and "num_samples must be at least 1, got 0" in err


@pytest.mark.parametrize("argv", [["distil"], ["--outptu"]])
def test_unknown_command(capsys, argv):
    code, _, err = call(capsys, argv)
    assert code == 2
    assert err == (
        f"liftplace: there is no command {argv[0]!r}: choose from demo, prune, encode, "
        "distill, train, sample, evaluate, analyze, report, or see --help\n"
    )


def test_loss_that_is_not_finite_is_one_line_and_exit_code_1(capsys, distill, tmp_path):
    spoilt = tiny_unet()
    spoilt.conv_out.bias.data.fill_(float("nan"))
    save_pipeline(spoilt, process(), tmp_path / "spoilt")
    spoilt_run = distill(pretrained_teacher_name_or_path=tmp_path / "spoilt", loss="place")
    code, _, err = call(capsys, spoilt_run)
    assert code == 1
    assert "liftplace: step 1: coarse of student is not finite" in err.splitlines()[-1]
    assert "Traceback" not in err


def test_ctrl_c_saves_and_says_so(distill, tmp_path):
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "liftplace", *distill(max_train_steps=100_000)]
    with subprocess.Popen(
        command, env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as running:
        metrics = tmp_path / "run" / "metrics.jsonl"
        while not metrics.exists():
            assert running.poll() is None, running.stderr.read()
            time.sleep(0.1)
        running.send_signal(signal.SIGINT)
        _, err = running.communicate()
    assert running.returncode == 130
    (checkpoint,) = (tmp_path / "run").glob("checkpoint-*")
    step = int(checkpoint.name.split("-")[1])
    assert f"liftplace: stopped at step {step}: {checkpoint} saved" in err.splitlines()[-1]
    assert "Traceback" not in err
