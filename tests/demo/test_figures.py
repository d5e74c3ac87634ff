import math

import numpy as np
import torch
from PIL import Image

from liftplace.demo import figures
from liftplace.demo.measure import Measured
from liftplace.demo.methods import METHODS
from liftplace.demo.settings import DemoSettings
from liftplace.evaluate.agreement import Agreement
from liftplace.evaluate.scores import Scores
from liftplace.plots.axes import running_mean

NAMES = tuple(method.name for method in METHODS)


def curves(steps):
    lines = []
    for step in range(1, steps + 1):
        line = {"step": step} | {f"{name}/task": 1 / step for name in NAMES}
        line["wide/kd"] = 2 / step
        place = {"coarse": 0.5, "fine": 0.1, "weight": 1 - 1 / step}
        line |= {f"narrow_place/{term}": value for term, value in place.items()}
        lines.append(line)
    return lines


def test_curves_are_those_of_the_metrics():
    lines = curves(4)
    assert figures._curve(lines, "narrow_place", "weight").tolist() == [0, 0.5, 1 - 1 / 3, 0.75]
    assert figures._curve(lines, "wide", "fine").tolist() == [2, 1, 2 / 3, 1 / 2]
    assert figures._curve(lines, "wide_no_kd", "coarse") is None


def test_smoothing_averages_what_is_near():
    values = np.arange(10.0)
    assert running_mean(values, share=40).tolist() == [0.5, 1, 2, 3, 4, 5, 6, 7, 8, 8.5]
    assert running_mean(np.ones(1000), share=40).tolist() == [1] * 1000


def test_losses_are_drawn_for_one_step_and_for_many(tmp_path):
    for steps in (1, 200):
        figures.save_losses(curves(steps), tmp_path / "losses.png")
        with Image.open(tmp_path / "losses.png") as picture:
            assert picture.size == (1300, 780)


def test_samples_have_a_row_for_each_model(tmp_path):
    scores = Scores(12.3, 0.1, 500, 64)
    measured, samples = {}, {}
    for name in ("teacher", *NAMES):
        measured[name] = Measured(2_000_000, 10, scores, Agreement(0.1, 0.5), -0.7, 0.1, 1.0)
        samples[name] = torch.zeros(6, 1, 16, 16)
    sizes = []
    for shown in (3, 6):
        settings = DemoSettings(num_shown=shown)
        figures.save_samples(samples, measured, scores, tmp_path / "samples.png", settings)
        with Image.open(tmp_path / "samples.png") as picture:
            sizes.append(picture.size)
            grey = np.array(picture.convert("L")) == 128
    assert sizes[1][0] > sizes[0][0] and sizes[1][1] == sizes[0][1]
    rows = np.flatnonzero(np.diff(grey.mean(axis=1) > 0.3, prepend=False, append=False))
    assert len(rows) // 2 == 6


def test_counts_are_short():
    assert figures._thousands(35_173) == "35 k" and figures._thousands(1_225_089) == "1.2 M"
    assert not math.isnan(running_mean(np.array([1.0]), share=40)[0])
