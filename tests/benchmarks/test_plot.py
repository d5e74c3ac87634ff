"""`python -m benchmarks plot` draws what the ops program wrote."""

from pathlib import Path

import pytest

from benchmarks import results
from benchmarks.__main__ import main
from benchmarks.plot import draw


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("results")
    tiny = ["ops", "--shapes", "1,2,8,8", "2,2,8,8", "--repeats", "1", "--threads", "1"]
    assert main([*tiny, "--out", str(out), "--implementations", "torch", "mse"]) == 0
    return out


def test_plot_draws_a_picture(folder, capsys):
    from matplotlib import image

    assert main(["plot", "--results", str(folder), "--out", str(folder / "docs")]) == 0
    picture = folder / "docs" / "ops_cpu.png"
    assert str(picture) in capsys.readouterr().out
    pixels = image.imread(picture)
    assert pixels.shape[1] >= 1500 and pixels.std() > 0.05


def test_plot_without_results_says_what_to_run(tmp_path, capsys):
    assert main(["plot", "--results", str(tmp_path)]) == 2
    assert "run `python -m benchmarks ops` or `python -m benc" in capsys.readouterr().err


def test_draw_refuses_rows_it_cannot_show(folder, tmp_path):
    rows = [row for row in results.load(folder / "ops_cpu.csv") if row["op"] == "lift"]
    with pytest.raises(ValueError, match="no row to draw"):
        draw(rows, tmp_path / "none.png")
