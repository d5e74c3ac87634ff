"""Every row says where it comes from."""

import re

import pytest
import torch

from benchmarks import environment
from benchmarks.__main__ import main


def test_environment_of_a_cpu_run():
    where = environment.environment("cpu")
    assert where["device"] and where["driver"] == "" and where["torch"] == torch.__version__
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", where["date"])


def test_commit_marks_a_changed_tree(tmp_path, monkeypatch):
    monkeypatch.setattr(environment, "_ROOT", tmp_path)
    assert environment.commit() == "uncommitted"
    git = ("git", "-c", "user.name=n", "-c", "user.email=e@example.org")
    environment._run("git", "init")
    (tmp_path / "file.py").write_text("1")
    environment._run(*git, "add", ".")
    environment._run(*git, "commit", "-m", "m")
    assert re.fullmatch("[0-9a-f]{12}", environment.commit())
    (tmp_path / "benchmarks" / "results").mkdir(parents=True)
    (tmp_path / "benchmarks" / "results" / "ops_cpu.csv").write_text("")
    assert re.fullmatch("[0-9a-f]{12}", environment.commit())
    (tmp_path / "file.py").write_text("2")
    assert re.fullmatch(r"[0-9a-f]{12}\+dirty", environment.commit())


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("command", [["ops"], ["step"], ["train"], ["sweep"], ["study", "long"]])
def test_a_gpu_that_is_not_there_is_told_in_a_line(command, capsys):
    assert main([*command, "--device", "cuda"]) == 2
    assert capsys.readouterr().err == (
        "error: --device cuda: torch finds no CUDA device here; use --device cpu\n"
    )
