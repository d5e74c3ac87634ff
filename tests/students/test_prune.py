import json
import os

import pytest
import torch
from diffusers import DiTTransformer2DModel, UNet2DConditionModel

from liftplace import __version__
from liftplace.cli import main
from liftplace.errors import UsageError
from liftplace.families import families
from liftplace.students.prune import PruneConfig, prune
from liftplace.train.models import load_model
from tests.data.pictures import save_images
from tests.families.pipelines import tiny_pipeline
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
    flags = ["--pretrained_teacher_name_or_path", str(teacher), "--width", "0.5", "--depth", "2",
             "--importance", "taylor", "--layer_selection", "importance", "--num_batches", "2",
             "--train_batch_size", "2", "--train_data_dir", str(tmp_path / "images")]  # fmt: skip
    for run in ("a", "b"):
        with pytest.raises(SystemExit) as ended:
            main(["prune", "--output_dir", str(tmp_path / run), *flags])
        assert ended.value.code == 0
    a, b = (DiTTransformer2DModel.from_pretrained(tmp_path / run).state_dict() for run in "ab")
    assert [n for n in a if not torch.equal(a[n], b[n])] == []
    pruned(tmp_path / "magnitude", str(teacher), width=0.5, depth=2)
    other = DiTTransformer2DModel.from_pretrained(tmp_path / "magnitude").state_dict()
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
        main(["prune", "--pretrained_teacher_name_or_path", dit, "--output_dir", str(folder),
              "--keep_layers", *given])  # fmt: skip
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
