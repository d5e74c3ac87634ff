"""Every command of docs/recipes.md, as written but for its number of steps, on tiny teachers."""

import re
import shlex
from pathlib import Path

import diffusers
import pytest
import torch
from accelerate.state import AcceleratorState
from PIL import Image

from liftplace.cli import main
from liftplace.models.loading import load_model
from liftplace.models.saving import read_record, save_pipeline
from liftplace.train.run_folder import read_metrics
from tests.data.pictures import save_captions, save_images
from tests.families.pipelines import sample, tiny_pipeline
from tests.families.tiny import tiny_model
from tests.train.tiny import process

DOCUMENT = Path(__file__).parents[2] / "docs" / "recipes.md"
TEACHERS = {
    "ddpm-teacher": "UNet2DModel",
    "sd-teacher": "UNet2DConditionModel",
    "sdxl-teacher": "SDXL",
    "dit-teacher": "DiTTransformer2DModel",
    "pixart-teacher": "PixArtTransformer2DModel",
    "sd3-teacher": "SD3Transformer2DModel",
    "flux-teacher": "FluxTransformer2DModel",
}
RUN = {"train_batch_size": 2, "gradient_accumulation_steps": 1, "lr_warmup_steps": 0,
       "checkpointing_steps": 1, "logging_steps": 1, "report_to": "none",
       "num_validation_images": 2, "num_inference_steps": 2}  # fmt: skip
SHORT = {
    "prune": {"train_batch_size": 2, "num_batches": 2},
    "encode": {},
    "train": RUN | {"max_train_steps": 2},
    "distill": RUN | {"max_train_steps": 1},
    "sample": {"num_samples": 2, "num_inference_steps": 2},
    "evaluate": {"num_samples": 16, "num_inference_steps": 2},
    "report": {},
    "analyze": {"num_images": 4, "num_timesteps": 3, "map_timesteps": 2, "num_samples": 8,
                "num_inference_steps": 2},
}  # fmt: skip


def recipes() -> dict[str, list[list[str]]]:
    """The commands under each heading."""
    found = {}
    for section in re.split(r"^##+ ", DOCUMENT.read_text(encoding="utf-8"), flags=re.M)[1:]:
        blocks = re.findall(r"```sh\n(.*?)```", section, flags=re.S)
        lines = "".join(blocks).replace("\\\n", " ").splitlines()
        if lines:
            found[section.splitlines()[0]] = [shlex.split(line) for line in lines]
    return found


RECIPES = recipes()


@pytest.fixture
def workshop(tmp_path, monkeypatch):
    """A folder with the datasets that the document names."""
    monkeypatch.chdir(tmp_path)
    names = [f"{number}.png" for number in range(8)]
    save_images(tmp_path / "photos", names)
    save_images(tmp_path / "classes", [f"{number}/a.png" for number in range(10)])
    save_images(tmp_path / "captioned", names)
    save_captions(tmp_path / "captioned", dict.fromkeys(names, "a red cat"))
    return tmp_path


def make_teacher(name: str) -> None:
    if name == "class-teacher":
        model = tiny_model("UNet2DModel", num_class_embeds=10)
        save_pipeline(model, type(process()).new("flow"), name)
    elif name in TEACHERS:
        tiny_pipeline(TEACHERS[name], Path(name))


def run(command: list[str], **changes) -> None:
    assert command[0] == "liftplace"
    flags = SHORT[command[1]] | changes
    if "512" in command:
        flags["resolution"] = 16
    with pytest.raises(SystemExit) as exited:
        main([*command[1:], *(str(x) for n, v in flags.items() for x in (f"--{n}", v))])
    AcceleratorState._reset_state(reset_partial_state=True)
    assert exited.value.code == 0


def value(command: list[str], flag: str) -> str:
    return command[command.index(flag) + 1]


def test_the_document_has_a_recipe_for_every_row():
    rows = re.findall(r"^\| `(\w+)` \|.*\[(\w+)\]\(#\w+\) \|$", DOCUMENT.read_text(), flags=re.M)
    assert {family for family, _ in rows} == set(TEACHERS.values()) - {"SDXL"}
    assert all(name in RECIPES for _, name in rows)


@pytest.mark.parametrize("heading", RECIPES)
def test_recipe(workshop, heading):
    for command in RECIPES[heading]:
        for name in command:
            if name.endswith("-teacher") and command[1] != "train" and not Path(name).exists():
                make_teacher(name)
        run(command)
        output = Path(value(command, "--output" if command[1] == "sample" else "--output_dir"))
        if command[1] == "sample":
            assert Image.open(output).size[0] > 16
        if command[1] == "evaluate":
            assert "FD-Lite0" in (output / "results.json").read_text()
        if command[1] == "analyze":
            assert "corrected" in (output / "report.html").read_text()
        if command[1] == "report":
            assert "ddpm-student" in (output / "report.html").read_text()
        if command[1] == "distill" and "--dry_run" not in command:
            run(command, max_train_steps=2, resume_from_checkpoint="latest")
            check_result(output, value(command, "--pretrained_teacher_name_or_path"))


def check_result(folder: Path, teacher: str) -> None:
    assert [line["step"] for line in read_metrics(folder / "metrics.jsonl")] == [1, 2]
    assert {path.name for path in folder.glob("checkpoint-*")} == {"checkpoint-1", "checkpoint-2"}
    assert (folder / "README.md").is_file() and (folder / "config.yaml").is_file()
    student, big = load_model(folder), load_model(teacher)
    layer_map = read_record(folder)["layer_map"]
    assert layer_map.keys() == student.family.blocks(student.model).keys()
    assert set(layer_map.values()) <= big.family.blocks(big.model).keys()
    ours, theirs = (sum(w.numel() for w in each.model.parameters()) for each in (student, big))
    assert ours < theirs
    if (folder / "model_index.json").is_file():
        stock = diffusers.DiffusionPipeline.from_pretrained(folder)
        assert type(stock) is type(diffusers.DiffusionPipeline.from_pretrained(teacher))
        assert torch.isfinite(torch.as_tensor(sample(folder))).all()
