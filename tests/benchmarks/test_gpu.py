"""The stages for a GPU: rehearsed on the CPU, within their time, and taken up again."""

import subprocess
import sys
import time

import pytest

from benchmarks import gpu, results
from benchmarks.__main__ import main
from benchmarks.red import LOST, RedList

WHERE = {"date": "2026-01-01", "device": "a GPU", "commit": "abc"}


def rehearse(out, stage, minutes="20"):
    command = f"gpu --device cpu --stage {stage} --commit abc --minutes {minutes} --out".split()
    return main([*command, str(out)])


@pytest.fixture
def run(tmp_path):
    """Runs Python code as a step of so many seconds; the log is removed with the folder."""
    with (tmp_path / "log").open("a+b") as log:

        def run(code, seconds=60.0, **more):
            step = gpu.Step("a step", 1, ("{python}", "-c", code), (), **more)
            return gpu.run(step, seconds, log, tmp_path, "abc", rehearsal=True)

        yield run


@pytest.mark.parametrize("stage", gpu.STAGES)
def test_every_stage_can_be_rehearsed(stage, tmp_path, capsys):
    assert rehearse(tmp_path, stage) == 0, capsys.readouterr().out
    printed = capsys.readouterr().out
    for step in gpu.STAGES[stage]:
        (line,) = (line for line in printed.splitlines() if f"  {step.name}: " in line)
        assert line.startswith(("ok", "skipped")), line
    assert "\ntargets\n" in printed
    files = {file.name for file in tmp_path.iterdir()}
    assert f"stage{stage}.log" in files and len(files) <= 8
    for name in files - {f"stage{stage}.log"}:
        assert {row["commit"] for row in results.load(tmp_path / name)} <= {"abc"}, name


def test_the_headline_comes_first_and_compiles_nothing():
    first = gpu.STAGES[1][0].command
    assert "compile" not in " ".join(first[first.index("--implementations") :])
    tests = ["pytest" in step.command for step in gpu.STAGES[1]]
    assert tests == [False, True, True]


def test_a_step_is_red_or_ok_by_its_exit_code(run):
    assert run("print('well')").printed == ["well"]
    outcome = run("print('one'); print('two'); raise SystemExit(3)")
    assert (outcome.state, outcome.printed) == ("red", ["one", "two"])
    assert "red" in str(outcome) and "one\n    two" in str(outcome)


def test_a_step_that_hangs_is_stopped_with_its_children(run, tmp_path):
    """The interrupt is ignored, and a child writes on."""
    child = f"import time\nwhile True: open({str(tmp_path / 'alive')!r}, 'w'); time.sleep(0.01)"
    code = (
        "import signal, subprocess, sys, time\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        f"subprocess.Popen([sys.executable, '-c', {child!r}])\n"
        "print('begun', flush=True)\n"
        "time.sleep(600)"
    )
    start = time.monotonic()
    outcome = run(code, gpu.GRACE + 3)
    assert (outcome.state, outcome.printed) == ("stopped", ["begun"])
    assert time.monotonic() - start < gpu.GRACE + 10
    (tmp_path / "alive").unlink(missing_ok=True)
    time.sleep(0.2)
    assert not (tmp_path / "alive").exists()


def test_a_step_that_lost_the_gpu_is_run_again(run, tmp_path):
    mark = str(tmp_path / "mark")
    code = (
        "import pathlib\n"
        f"mark = pathlib.Path({mark!r})\n"
        f"code = 0 if mark.exists() else {LOST}\n"
        "mark.touch()\n"
        "raise SystemExit(code)"
    )
    assert run(code).state == "ok"


def test_what_a_step_needs_is_named(run):
    outcome = run("", needs=("sys", "no_such_module"))
    assert (outcome.state, outcome.printed) == ("skipped", ["there is no no_such_module here"])


def test_tools_beside_nvcc_are_found(run, tmp_path, monkeypatch):
    """Where the toolkit is not in PATH."""
    tool = tmp_path / "liftplace_tool"
    tool.write_text("#!/bin/sh\necho here\n")
    tool.chmod(0o755)
    monkeypatch.setattr(gpu, "find_nvcc", lambda: str(tmp_path / "nvcc"))
    code = "import subprocess; subprocess.run(['liftplace_tool'])"
    assert run(code, needs=("liftplace_tool",)).printed == ["here"]


def test_when_it_is_ended_its_step_ends_too(tmp_path):
    """By SIGTERM, as `timeout` does."""
    mark = tmp_path / "alive"
    step = f"import time\nfor _ in range(3000): open({str(mark)!r}, 'w'); time.sleep(0.01)"
    code = (
        "import runpy, sys\n"
        "from benchmarks import gpu\n"
        f"gpu.STAGES[3] = (gpu.Step('a step', 1, ('{{python}}', '-c', {step!r}), ()),)\n"
        f"sys.argv[1:] = 'gpu --device cpu --stage 3 --commit abc --out {tmp_path}'.split()\n"
        "runpy.run_module('benchmarks', run_name='__main__')"
    )
    process = subprocess.Popen([sys.executable, "-c", code], cwd=gpu.ROOT)
    while not mark.exists():
        assert process.poll() is None
        time.sleep(0.05)
    process.terminate()
    assert process.wait(60) != 0
    mark.unlink(missing_ok=True)
    time.sleep(0.2)
    assert not mark.exists()


def test_rows_of_this_commit_are_taken_up(tmp_path):
    source, out = tmp_path / "source", tmp_path / "out"
    red = RedList(source / "red_cuda.csv", "ops", WHERE)
    with red.guard("place (1, 2)", "cuda"):
        raise ValueError("wrong")
    gpu.restore(source, out, "another", "cuda")
    assert not out.exists()
    gpu.restore(source, out, "abc", "cuda")
    assert RedList(out / "red_cuda.csv", "ops", WHERE).names("place (1, 2)") == {"cuda"}
    results.write(source / "red_cuda.csv", ["commit"], [{"commit": "abc"}])
    gpu.restore(source, out, "abc", "cuda")  # what is there stays
    assert results.load(out / "red_cuda.csv") != results.load(source / "red_cuda.csv")


def test_without_git_the_commit_must_be_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(gpu, "commit", lambda: "uncommitted")
    assert main(["gpu", "--device", "cpu", "--stage", "3", "--out", str(tmp_path)]) == 2
    assert "error: --commit: Git names no commit here" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
