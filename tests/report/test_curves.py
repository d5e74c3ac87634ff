from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from liftplace.common.errors import UsageError
from liftplace.plots.axes import style_of
from liftplace.plots.images import new_figure
from liftplace.report import curves
from liftplace.report.runs import read_runs
from tests.report.run_folders import falling, write_metrics, write_run


def coloured(picture: Image.Image, colour: str) -> int:
    """Pixels of exactly this colour."""
    wanted = tuple(int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return int((np.asarray(picture.convert("RGB")) == wanted).all(-1).sum())


def test_panels_are_those_that_any_run_has(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    write_metrics(one, [{"step": 1, "learning_rate": 0.1, "task": 1.0, "loss": 2.0}])
    write_metrics(two, [{"step": 1, "weight": 0.5, "gradient/task": 1.0, "fd_lite0": 99.0}])
    panels = curves.panels_of(read_runs((str(one), str(two))))
    assert {name: list(each) for name, each in panels.items()} == {
        "losses": ["loss", "task"],
        "training": ["weight", "learning_rate", "gradient/task"],
        "other": ["fd_lite0"],
    }


def test_terms_of_the_loss_have_the_unit_of_their_reduction(tmp_path):
    (run,) = read_runs((write_run(tmp_path / "a", falling(1)),))
    by_sum = replace(run, objective=run.objective | {"reduction": "sum"})
    for runs, unit in (
        ([run], "mean over elements"),
        ([by_sum], "sum over a sample"),
        ([run, by_sum], "as logged"),
    ):
        terms = curves.panels_of(runs)["losses"]
        assert terms["task"].unit == unit and terms["fine"].unit == "mean over elements"


def test_running_mean():
    assert curves.running_mean(np.arange(10.0)).tolist() == [0.5, 1, 2, 3, 4, 5, 6, 7, 8, 8.5]
    assert curves.running_mean(np.ones(1000)).tolist() == [1] * 1000
    spike = np.zeros(400)
    spike[200] = 21
    smooth = curves.running_mean(spike)
    assert smooth[190:211].tolist() == pytest.approx([1] * 21) and smooth[189] == smooth[211] == 0


@pytest.mark.parametrize("decades", [0.6, 1, 2, 4, 9])
def test_labels_of_a_logarithmic_axis_are_neither_missing_nor_crowded(tmp_path, decades):
    write_metrics(
        tmp_path, [{"step": s, "task": 1e-4 * 10 ** (decades * s / 9)} for s in range(10)]
    )
    figure = new_figure(4, 2.6)
    axes = figure.subplots()
    curves._plot(axes, read_runs((str(tmp_path),)), "task", curves.TERMS["task"])
    figure.canvas.draw()
    low, high = axes.get_ylim()
    shown = [tick for tick in axes.get_yticks() if low <= tick <= high]
    assert axes.get_yscale() == "log" and 2 <= len(shown) <= 10


def test_every_run_is_a_line_of_its_colour(tmp_path):
    folders = [
        write_run(tmp_path / name, falling(60, start=start), max_train_steps=60)
        for name, start in (("a", 1), ("b", 3))
    ]
    runs = read_runs(tuple(folders))
    panels = {"loss": curves.TERMS["loss"]}
    inks = []
    for shown in (runs[:1], runs):
        curves.save_curves(shown, panels, tmp_path / "losses.png")
        with Image.open(tmp_path / "losses.png") as picture:
            assert picture.width == 1350
            inks.append([coloured(picture, style_of(number)["color"]) for number in (0, 1)])
    assert inks[0][0] > 1000 and inks[0][1] == 0 and inks[1][1] > 1000


def test_few_values_are_marked_and_many_smoothed_beside_the_raw(tmp_path):
    drawn = {}
    for steps in (1, 60):
        (run,) = read_runs((write_run(tmp_path / str(steps), falling(steps)),))
        axes = new_figure(4, 3).subplots()
        curves._plot(axes, [run], "loss", curves.panels_of([run])["losses"]["loss"])
        drawn[steps] = axes.lines
        assert axes.get_xlabel() == "optimiser step" and axes.get_ylabel() == "mean over elements"
        assert axes.get_yscale() == ("log" if steps > 1 else "linear")
    assert [line.get_marker() for line in drawn[1]] == ["o"]
    raw, smooth = (line.get_ydata().tolist() for line in drawn[60])
    assert raw == run.curves["loss"].values.tolist()
    assert smooth == curves.running_mean(run.curves["loss"].values).tolist()


def test_samples_have_a_row_for_each_run_that_has_some(tmp_path):
    a = write_run(tmp_path / "a", falling(6), samples_at=range(1, 7))
    b = write_run(tmp_path / "b", falling(6), samples_at=(3, 6))
    c = write_run(tmp_path / "c", falling(6))
    sizes = []
    for folders in ((a, c), (a, b)):
        curves.save_samples(read_runs(folders), tmp_path / "samples.png")
        with Image.open(tmp_path / "samples.png") as picture:
            sizes.append(picture.size)
    assert sizes[1][1] == pytest.approx(2 * sizes[0][1], abs=1)
    assert sizes[0][0] > sizes[1][0]  # five steps of the one, the two that both have
    assert curves._thin(list(range(1, 101))) == [1, 26, 51, 75, 100] and curves._thin([4]) == [4]


def test_a_picture_that_is_being_written_is_named(tmp_path):
    folder = write_run(tmp_path / "a", falling(6), samples_at=(6,))
    picture = tmp_path / "a" / "samples" / "student-000006.png"
    picture.write_bytes(picture.read_bytes()[:60])
    with pytest.raises(UsageError, match="cannot read .*student-000006.png"):
        curves.save_samples(read_runs((folder,)), tmp_path / "samples.png")
