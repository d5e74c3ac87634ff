"""What an earlier version wrote is read: see tests/old/README.md."""

import re
import shlex
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from liftplace.cli import main
from liftplace.data import load_dataset
from liftplace.models.loading import load_model
from liftplace.models.saving import read_record
from liftplace.report.runs import read_runs

OLD = Path(__file__).parent / "old"
COMMANDS = [
    shlex.split(command.replace("\\\n", " "))[1:]
    for command in re.findall(
        r"^    liftplace (?:.*\\\n)*.*", (OLD / "README.md").read_text(), re.MULTILINE
    )
]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A copy of the old files, from where their commands can be given."""
    shutil.copytree(OLD, tmp_path / "old")
    monkeypatch.chdir(tmp_path / "old")
    return tmp_path / "old"


def test_a_run_goes_on_and_ends_where_it_would_have(folder):
    main_(COMMANDS[0] + ["--resume_from_checkpoint", "latest"])
    expected = load_file("finished/diffusion_pytorch_model.safetensors")
    found = load_file("run/unet/diffusion_pytorch_model.safetensors")
    assert found.keys() == expected.keys()
    for name, weight in expected.items():
        # Bits are one machine's; a step changes weights by about 1e-2.
        torch.testing.assert_close(found[name], weight, rtol=1e-3, atol=1e-5)


def test_a_config_file_is_read(folder):
    main_(["distill", "--config", "run/config.yaml", "--output_dir", "again", "--dry_run"])


def test_a_run_is_reported(folder):
    (run,) = read_runs(("run",))
    assert (
        run.last_step == 3 and run.objective["loss"] == "place" and run.curves["loss"].left_out == 0
    )


def test_a_pruned_student_is_made_and_read_as_before(folder):
    main_(COMMANDS[1][:-1] + ["again"])
    old, new = (load_model(name).model for name in ("pruned", "again"))
    for name, weight in old.state_dict().items():
        assert torch.equal(weight, new.state_dict()[name])
    assert read_record("pruned").keys() == read_record("again").keys()


def test_a_pruned_student_has_its_teachers_process_and_can_be_trained(folder, capsys):
    main_(["sample", "--model", "pruned", "--num_samples", "2", "--output", "grid.png"])
    assert "no scheduler" not in capsys.readouterr().out
    shrunk = COMMANDS[0].index("--student_block_out_channels")
    command = COMMANDS[0][:shrunk] + ["--student", "pruned"] + COMMANDS[0][shrunk + 3 : -1]
    main_([*command, "again", "--dry_run"])


def test_a_cache_is_read(folder):
    dataset = load_dataset("cache", resolution=16)
    expected = load_file("cached_items.safetensors")
    found = {
        f"{number}.{name}": torch.as_tensor(value)
        for number in range(len(dataset))
        for name, value in dataset[number].items()
    }
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def main_(argv):
    with pytest.raises(SystemExit) as end:
        main(argv)
    assert not end.value.code
