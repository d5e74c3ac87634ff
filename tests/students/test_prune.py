import errno
import json
import os

import pytest
import torch
from diffusers import DiffusionPipeline, DiTTransformer2DModel, UNet2DConditionModel

from liftplace import __version__
from liftplace.cli import main
from liftplace.common.errors import UsageError
from liftplace.families import families
from liftplace.models.loading import load_model
from liftplace.models.saving import RECORD
from liftplace.students.config import PruneConfig
from liftplace.students.prune import prune
from tests.data.pictures import save_images
from tests.families.pipelines import PIPELINES, sample, tiny_pipeline
from tests.families.tiny import tiny_model

TRANSFORMERS = [f"{name}Transformer2DModel" for name in ("DiT", "PixArt", "SD3", "Flux")]
DIT = TRANSFORMERS[0]


def saved(name, folder, **changes):
    tiny_model(name, **changes).save_pretrained(folder)
    return str(folder)


def pruned(folder, teacher, **options):
    prune(PruneConfig(pretrained_teacher_name_or_path=teacher, output_dir=str(folder), **options))
    return load_model(folder).model


def record(folder):
    return json.loads((folder / "liftplace_config.json").read_text())


@pytest.fixture
def dit(tmp_path):
    return saved(DIT, tmp_path / "dit")


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_width_and_depth_together(name, tmp_path, capsys):
    teacher = saved(name, tmp_path / "teacher")
    student = pruned(tmp_path / "student", teacher, width=0.5, depth=2)
    assert student.config.num_attention_heads == 1
    ours = families()[name].blocks(student)
    assert len(ours) == 2
    found = record(tmp_path / "student")
    assert found["liftplace"] == __version__ and found["teacher"] == teacher
    assert found["prune"]["width"] == 0.5 and found["prune"]["depth"] == 2
    last = {"FluxTransformer2DModel": "single_transformer_blocks.0"}
    theirs = ["transformer_blocks.0", last.get(name, "transformer_blocks.3")]
    assert found["layer_map"] == dict(zip(ours, theirs, strict=True))
    assert "parameters" in capsys.readouterr().out


def test_blocks_and_width_of_a_unet(tmp_path):
    teacher = saved("UNet2DConditionModel", tmp_path / "teacher")
    pruned(tmp_path / "student", teacher, width=0.5, drop_blocks="bk-small")
    student = UNet2DConditionModel.from_pretrained(tmp_path / "student")
    assert student.mid_block is None
    assert student.config.block_out_channels == [8, 16]
    names = ["down_blocks.0", "down_blocks.1", "up_blocks.0", "up_blocks.1"]
    assert record(tmp_path / "student")["layer_map"] == {name: name for name in names}


def test_random_init_has_the_shapes_and_other_weights(dit, tmp_path):
    options = {"width": 0.5, "depth": 2}
    inherited = pruned(tmp_path / "inherited", dit, **options).state_dict()
    fresh = [
        pruned(tmp_path / f"fresh{run}", dit, random_init=True, seed=seed, **options).state_dict()
        for run, seed in enumerate((1, 1, 2))
    ]
    assert {n: w.shape for n, w in fresh[0].items()} == {n: w.shape for n, w in inherited.items()}
    name = "transformer_blocks.1.attn1.to_q.weight"
    assert torch.equal(fresh[0][name], fresh[1][name])
    assert not torch.equal(fresh[0][name], fresh[2][name])
    assert not torch.equal(fresh[0][name], inherited[name])
    blocks = record(tmp_path / "fresh0")["layer_map"]
    assert blocks == record(tmp_path / "inherited")["layer_map"]


def test_channels_and_layers_by_their_effect_on_images(tmp_path):
    """On images, as the command line takes them; class labels and latents included."""
    teacher = tiny_pipeline(DIT, tmp_path / "teacher")
    save_images(tmp_path / "images", [f"{label}/a.png" for label in range(10)])
    settings = (
        "--width 0.5 --depth 2 --importance taylor --layer_selection importance --num_batches 2 "
        "--train_batch_size 2"
    )
    folders = {"pretrained_teacher_name_or_path": teacher, "train_data_dir": tmp_path / "images"}
    flags = settings.split()
    for name, folder in folders.items():
        flags += [f"--{name}", str(folder)]
    for run in ("a", "b"):
        with pytest.raises(SystemExit) as ended:
            main(["prune", "--output_dir", str(tmp_path / run), *flags])
        assert ended.value.code == 0
    a, b = (load_model(tmp_path / run).model.state_dict() for run in "ab")
    assert [n for n in a if not torch.equal(a[n], b[n])] == []
    other = pruned(tmp_path / "magnitude", str(teacher), width=0.5, depth=2).state_dict()
    assert any(not torch.equal(a[name], other[name]) for name in a)


def test_layers_are_measured_on_noise_without_images(dit, tmp_path):
    model = DiTTransformer2DModel.from_pretrained(dit)
    for part in ("attn1.to_out.0", "ff.net.2"):
        layer = model.transformer_blocks[0].get_submodule(part)
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
    model.save_pretrained(dit)
    options = {"layer_selection": "importance", "num_batches": 1, "train_batch_size": 1}
    pruned(tmp_path / "student", dit, depth=3, **options)
    kept = [f"transformer_blocks.{number}" for number in (1, 2, 3)]
    assert list(record(tmp_path / "student")["layer_map"].values()) == kept


def test_nothing_is_left_of_a_student_that_cannot_be_used(dit, tmp_path):
    model = DiTTransformer2DModel.from_pretrained(dit)
    model.proj_out_2.bias.data[0] = torch.nan
    model.save_pretrained(dit)
    with pytest.raises(UsageError, match="not finite"):
        pruned(tmp_path / "student", dit, depth=2)
    assert os.listdir(tmp_path) == ["dit"]


def test_nothing_is_left_where_the_disk_is_full(dit, tmp_path, monkeypatch):
    save = DiTTransformer2DModel.save_pretrained

    def fails(self, folder, **options):
        save(self, folder, **options)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(DiTTransformer2DModel, "save_pretrained", fails)
    with pytest.raises(OSError, match="No space left"):
        pruned(tmp_path / "student", dit, depth=2)
    assert os.listdir(tmp_path) == ["dit"]


def test_an_interrupted_attempt_is_no_obstacle(dit, tmp_path):
    (tmp_path / ".student.partial").mkdir()
    (tmp_path / ".student.partial" / "half").write_text("")
    (tmp_path / "student").mkdir()
    pruned(tmp_path / "student", dit, depth=2)
    expected = ["config.json", "diffusion_pytorch_model.safetensors", "liftplace_config.json"]
    assert sorted(os.listdir(tmp_path / "student")) == expected
    assert sorted(os.listdir(tmp_path)) == ["dit", "student"]


@pytest.mark.parametrize("layers", ["0,2,3", "0, 2, 3", (0, 2, 3), [0, 2, 3]])
def test_spellings_of_layers(layers):
    assert PruneConfig(keep_layers=layers).keep_layers == (0, 2, 3)
    assert PruneConfig(keep_layers="1").keep_layers == (1,)


@pytest.mark.parametrize("given", [["0,2"], ["0", "2"]])
def test_layers_on_the_command_line(given, dit, tmp_path):
    folder = tmp_path / "student"
    with pytest.raises(SystemExit) as ended:
        flags = f"--pretrained_teacher_name_or_path {dit} --output_dir {folder} --keep_layers"
        main(["prune", *flags.split(), *given])
    assert ended.value.code == 0
    assert record(folder)["prune"]["keep_layers"] == [0, 2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 0.0}, "width must be more than 0"),
        ({"width": 1.5}, "width must be more than 0"),
        ({"depth": 0}, "depth must be at least 1"),
        ({"num_batches": 0}, "num_batches must be at least 1"),
        ({"keep_layers": "0,x"}, "keep_layers must be numbers like 0,2,4, got '0,x'"),
        ({"drop_blocks": "bk"}, "drop_blocks must be .*bk-base.* got 'bk'"),
    ],
)
def test_bad_values(options, message):
    with pytest.raises(UsageError, match=message):
        PruneConfig(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pretrained_teacher_name_or_path": ""}, "--pretrained_teacher_name_or_path is missing"),
        ({"output_dir": ""}, "--output_dir is missing"),
        ({"width": None}, "nothing to prune"),
        ({"keep_layers": (0,), "depth": 1}, "--keep_layers or --depth, not both"),
        ({"dataset_name": "digits", "train_data_dir": "x"}, "--train_data_dir, not both"),
        ({"importance": "taylor"}, "--importance taylor needs images"),
        ({"importance": "taylor", "random_init": True}, "without --random_init"),
        ({"layer_selection": "importance"}, "give --depth"),
        ({"student_config": "s.json"}, "--width or --student_config, not both"),
        ({"width": None, "depth": 2, "norm_num_groups": 4}, "--norm_num_groups goes with --width"),
    ],
)
def test_settings_that_do_not_go_together(options, message):
    complete = {"pretrained_teacher_name_or_path": "t", "output_dir": "no such", "width": 0.5}
    PruneConfig(**complete).check_complete()
    with pytest.raises(UsageError, match=message):
        PruneConfig(**complete | options).check_complete()


def test_a_folder_with_something_in_it_is_left_alone(dit, tmp_path):
    with pytest.raises(UsageError, match="--output_dir .* exists: name a new folder"):
        pruned(dit, dit, depth=2)


def by_config(tmp_path, teacher, changes, **options):
    file = tmp_path / "student.json"
    file.write_text(json.dumps(changes))
    return pruned(tmp_path / "student", teacher, student_config=str(file), **options)


UNETS = ["UNet2DModel", "UNet2DConditionModel"]
SMALL = {"block_out_channels": [8, 16], "norm_num_groups": 4, "dropout": 0.25}


@pytest.mark.parametrize("name", UNETS)
@pytest.mark.parametrize("random_init", [False, True])
def test_student_by_a_config_is_the_teacher_but_for_what_it_says(name, random_init, tmp_path):
    teacher = saved(name, tmp_path / "teacher")
    student = by_config(tmp_path, teacher, SMALL, random_init=random_init)
    theirs = load_model(teacher).model.config
    changed = {key for key, value in student.config.items() if value != theirs[key]}
    assert changed - {"_name_or_path"} == SMALL.keys()
    weight, old = student.conv_in.weight, load_model(teacher).model.conv_in.weight
    inherited = [any(torch.equal(row, other) for other in old) for row in weight]
    assert all(inherited) != random_init


def test_norm_groups_go_by_the_channels_of_a_config_that_names_none(tmp_path):
    teacher = saved("UNet2DModel", tmp_path / "teacher")  # 16 channels in 8 groups
    student = by_config(tmp_path, teacher, {"block_out_channels": [8, 16]})
    assert student.config.norm_num_groups == 4


def test_a_block_that_becomes_as_wide_on_both_sides_loses_its_convolution(tmp_path):
    teacher = saved("UNet2DModel", tmp_path / "teacher", block_out_channels=(8, 16))
    student = by_config(tmp_path, teacher, {"block_out_channels": [8, 8], "norm_num_groups": 2})
    assert load_model(teacher).model.down_blocks[1].resnets[0].conv_shortcut is not None
    assert student.down_blocks[1].resnets[0].conv_shortcut is None
    conv = student.down_blocks[1].resnets[0].conv1.weight
    assert conv.shape == (8, 8, 3, 3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ([1], "need an object"),
        ({"_class_name": "UNet2DConditionModel"}, "of a UNet2DConditionModel, the teacher a UNet2"),
        ({"widths": [8, 16]}, "UNet2DModel has no widths"),
        ({"block_out_channels": [8]}, "no such UNet2DModel: Must provide the same number"),
        (
            {"block_out_channels": [8, 16], "norm_num_groups": 3},
            "no such UNet2DModel: num_channels",
        ),
        ({"block_out_channels": [16, 64]}, "cannot keep 64 of 32"),
        ({"layers_per_block": 2}, "sliced to nothing"),
        ({"mid_block_type": None}, "mid_block.*: only the teacher has it"),
    ],
)
def test_configs_of_no_student_are_refused(changes, message, tmp_path):
    teacher = saved("UNet2DModel", tmp_path / "teacher")
    with pytest.raises(UsageError, match=message):
        by_config(tmp_path, teacher, changes)
    assert not (tmp_path / "student").exists()


def test_norm_groups_of_a_narrow_student_may_be_given(tmp_path, capsys):
    teacher = saved("UNet2DModel", tmp_path / "teacher")  # 16 channels in 8 groups
    student = pruned(tmp_path / "two", teacher, width=0.5)
    assert student.config.norm_num_groups == 4
    assert "norm groups 8 -> 4, at least 2 -> 2 channels a group" in capsys.readouterr().out
    student = pruned(tmp_path / "one", teacher, width=0.5, norm_num_groups=8)
    assert student.config.norm_num_groups == 8
    printed = capsys.readouterr().out
    assert "norm groups 8 -> 8, at least 2 -> 1 channels a group" in printed
    assert "Warning: " in printed and "Use fewer norm groups" in printed


def test_a_transformer_has_no_norm_groups_to_give(dit, tmp_path):
    with pytest.raises(UsageError, match="norm_num_groups: DiTTransformer2DModel has no group no"):
        pruned(tmp_path / "student", dit, width=0.5, norm_num_groups=2)


def test_where_blocks_are_left_out_the_norms_stay(tmp_path):
    name = "UNet2DConditionModel"
    teacher = saved(name, tmp_path / "teacher", norm_num_groups=16)  # one channel a group
    student = pruned(tmp_path / "student", teacher, drop_blocks="bk-small")
    assert student.config.norm_num_groups == 16


SMALLER = {
    "UNet2DModel": {"width": 0.5},
    "UNet2DConditionModel": {"drop_blocks": "bk-small"},
    "SDXL": {"width": 0.5},
} | dict.fromkeys(TRANSFORMERS, {"depth": 2})


@pytest.mark.parametrize("name", PIPELINES)
def test_a_student_is_a_whole_pipeline_of_the_teachers_noise(name, tmp_path):
    teacher = tiny_pipeline(name, tmp_path / "teacher")
    (teacher / "checkpoint-1").mkdir()  # what is none of it stays behind
    pruned(tmp_path / "student", str(teacher), **SMALLER[name])
    stock = DiffusionPipeline.from_pretrained(tmp_path / "student")
    assert type(stock) is type(DiffusionPipeline.from_pretrained(teacher))
    assert torch.isfinite(torch.as_tensor(sample(tmp_path / "student"))).all()
    same = [load_model(folder).scheduler for folder in (teacher, tmp_path / "student")]
    assert same[0] == same[1] is not None
    left = {path.name for path in teacher.iterdir()} - {"checkpoint-1"}
    assert {path.name for path in (tmp_path / "student").iterdir()} == left | {RECORD}


@pytest.mark.parametrize("name", ["UNet2DModel", "SD3Transformer2DModel"])
def test_a_student_can_be_looked_at_at_once(name, tmp_path, capsys):
    """Sampled with the process of the teacher, text encoders and all."""
    teacher = tiny_pipeline(name, tmp_path / "teacher")
    pruned(tmp_path / "student", str(teacher), **SMALLER[name])
    settings = f"--model {tmp_path / 'student'} --output {tmp_path / 'grid.png'} --num_samples 2"
    flags = [*settings.split(), "--num_inference_steps", "2"]
    flags += ["--prompts", "a red cat"] if name == "SD3Transformer2DModel" else []
    with pytest.raises(SystemExit) as ended:
        main(["sample", *flags])
    assert ended.value.code == 0
    assert "no scheduler" not in capsys.readouterr().out
