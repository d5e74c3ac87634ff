"""What does not fit together is one line and exit code 2, before anything is trained or written."""

import json

import pytest
from accelerate.state import AcceleratorState
from safetensors.torch import load_file

from liftplace.cli import main
from tests.data.pictures import save_captions, save_images
from tests.families.pipelines import tiny_pipeline
from tests.families.tiny import tiny_model

SD, DIT = "UNet2DConditionModel", "DiTTransformer2DModel"


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    """Teachers, students and datasets that the cases combine."""
    folder = tmp_path_factory.mktemp("shelf")
    names = [f"{number}.png" for number in range(4)]
    save_images(folder / "photos", names)
    save_images(folder / "captioned", names)
    save_captions(folder / "captioned", dict.fromkeys(names, "a red cat"))
    save_images(folder / "classes", [f"{number}/a.png" for number in range(10)])
    save_images(folder / "three", [f"{number}/a.png" for number in range(3)])
    tiny_pipeline(SD, folder / "sd")
    tiny_pipeline(SD, folder / "wide", cross_attention_dim=32)
    tiny_pipeline(SD, folder / "deep", in_channels=8, out_channels=8)
    tiny_pipeline(DIT, folder / "dit")
    tiny_pipeline(DIT, folder / "other", seed=1)
    tiny_pipeline(DIT, folder / "velocity")
    scheduler = folder / "velocity" / "scheduler" / "scheduler_config.json"
    config = json.loads(scheduler.read_text()) | {"prediction_type": "v_prediction"}
    scheduler.write_text(json.dumps(config))
    tiny_model(DIT, num_embeds_ada_norm=7).save_pretrained(folder / "seven")
    run(f"encode --pretrained_teacher_name_or_path {folder}/dit --train_data_dir {folder}/classes "
        f"--output_dir {folder}/cache")  # fmt: skip
    assert load_file(next((folder / "cache").glob("*.safetensors")))
    return folder


def run(line: str) -> int:
    with pytest.raises(SystemExit) as exited:
        main(line.split())
    AcceleratorState._reset_state(reset_partial_state=True)
    return exited.value.code


DISTILL = "distill --output_dir {out} --report_to none --pretrained_teacher_name_or_path {shelf}/"
PRUNE = "prune --output_dir {out} --pretrained_teacher_name_or_path {shelf}/"
OF_DIT = DISTILL + "dit --student {shelf}/dit --train_data_dir {shelf}/"

CASES = {
    "latent channels": (
        DISTILL + "deep --student {shelf}/deep --train_data_dir {shelf}/captioned",
        "its VAE makes latents of 4 channels, but its unet takes 8",
    ),
    "text width": (
        DISTILL + "wide --student {shelf}/wide --train_data_dir {shelf}/captioned",
        "its text encoders make encoder_hidden_states of width 24, but its unet takes 32",
    ),
    "scheduler": (
        DISTILL + "dit --student {shelf}/velocity --train_data_dir {shelf}/classes",
        "student and teacher do not fit: {shelf}/velocity predicts v_prediction and {shelf}/dit",
    ),
    "classes of the student": (
        DISTILL + "dit --student {shelf}/seven --train_data_dir {shelf}/classes",
        "number of classes is 7 in {shelf}/seven and 10 in {shelf}/dit",
    ),
    "classes of the data": (OF_DIT + "three", "the dataset has 3 classes, but {shelf}/dit was"),
    "no classes": (OF_DIT + "photos", "{shelf}/photos has no class labels: need one subfolder"),
    "no captions": (
        DISTILL + "sd --student {shelf}/sd --train_data_dir {shelf}/photos",
        "{shelf}/photos has no captions: need a file metadata.jsonl",
    ),
    "another kind of student": (
        DISTILL + "dit --student {shelf}/sd --train_data_dir {shelf}/classes",
        "class is UNet2DConditionModel in {shelf}/sd and DiTTransformer2DModel in {shelf}/dit",
    ),
    "another VAE's cache": (
        DISTILL + "other --student {shelf}/other --train_data_dir {shelf}/cache",
        "{shelf}/cache was made by {shelf}/dit, with another VAE than {shelf}/other has: make it",
    ),
    "flips of a cache": (OF_DIT + "cache --random_flip", "--random_flip does not go with"),
    "weighting": (OF_DIT + "classes --weighting_scheme mode", "weighting_scheme=mode is for flow"),
    "resolution": (OF_DIT + "classes --resolution 20", "--resolution is 20, but {shelf}/dit works"),
    "no such block": (
        OF_DIT + "classes --feature_weight 1 --feature_layers transformer_blocks.9",
        "--feature_layers: the DiTTransformer2DModel has no block transformer_blocks.9",
    ),
    "width": (PRUNE + "sd --width 0.01", "width 0.01: no channels near 0.01 x [16, 32]"),
    "blocks of a transformer": (PRUNE + "dit --drop_blocks bk-base", "bk-base is for UNet2D"),
    "layers of a U-Net": (PRUNE + "sd --depth 2", "--keep_layers and --depth are for transformers"),
    "layer": (PRUNE + "dit --keep_layers 0,9", "--keep_layers 0,9 does not fit: need"),
    "nothing to prune": (PRUNE + "dit", "nothing to prune: give --width"),
    "another cache": (
        "encode --output_dir {shelf}/cache --pretrained_teacher_name_or_path {shelf}/other "
        "--train_data_dir {shelf}/classes",
        "--output_dir {shelf}/cache holds another cache: its fingerprint is",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_bad_input(shelf, tmp_path, capfd, case):
    line, message = CASES[case]
    before = {path: path.stat().st_mtime_ns for path in shelf.rglob("*")}
    code = run(line.format(shelf=shelf, out=tmp_path / "out"))
    lines = [line for line in capfd.readouterr().err.splitlines() if "liftplace: " in line]
    assert code == 2
    (said,) = lines
    assert message.format(shelf=shelf) in said
    assert not (tmp_path / "out").exists()
    assert {path: path.stat().st_mtime_ns for path in shelf.rglob("*")} == before
