"""The sheet keeps each cell's own samples; the figure shows them in their places."""

import numpy as np
import torch
from matplotlib import image

from benchmarks.study import reading, samples, sheet
from benchmarks.study.rows import student_strip, teacher_strip
from tests.benchmarks.study.rows_of_studies import row, save


def strip(shade):
    return np.full((16, 128), shade, np.uint8)


def test_strips_come_back_by_name_and_replace_their_own(tmp_path):
    path = tmp_path / "new" / "samples.png"
    assert sheet.read(path) == {}
    sheet.add(path, {"b-1": strip(1), "a-1": strip(2)})
    sheet.add(path, {"c-1": strip(3), "b-1": strip(4)})
    shades = {name: set(np.unique(pixels)) for name, pixels in sheet.read(path).items()}
    assert shades == {"a-1": {2}, "b-1": {4}, "c-1": {3}}
    first = path.read_bytes()
    sheet.add(path, {"a-1": strip(2)})
    assert path.read_bytes() == first and len(list(path.parent.iterdir())) == 1


def test_a_strip_is_the_images_side_by_side():
    grey = torch.linspace(-1, 1, 2 * 4).view(2, 1, 2, 2)
    assert sheet.strip_of(grey).tolist() == [[0, 36, 146, 182], [73, 109, 219, 255]]
    assert sheet.strip_of(grey.expand(2, 3, 2, 2)).shape == (2, 4, 3)


def test_every_strip_stands_in_its_row_and_column(tmp_path):
    labels = [(m, student) for m in ("LIFT", "no KD") for student in ("2 %", "10 %")]
    rows = [row("capacity", m, student=student, seed=s) for m, student in labels for s in (0, 1)]
    files = save(tmp_path, rows)
    kept = {(r["method"], r["student"]): student_strip(r) for r in rows if r["seed"] == 0}
    del kept["LIFT", "2 %"]
    names = [teacher_strip(rows[0]), *kept.values()]
    sheet.add(files.samples_path, {name: strip(shade) for shade, name in enumerate(names)})
    (study,) = reading.find(tmp_path)
    shown = samples.shown(study.rows, study.axes, study.files)
    shades = {name: {c: s.max() for c, s in of.items()} for name, of in shown.items()}
    assert shades == {
        "teacher": {"10 %": 0, "2 %": 0},
        "no KD": {"10 %": 3, "2 %": 2},
        "LIFT": {"10 %": 1},
    }


def test_many_columns_stack_their_samples_in_two_lines(tmp_path):
    shades = np.tile(np.repeat(np.arange(8, dtype=np.uint8) * 30, 16), (16, 1))
    cells = {"LIFT": {f"{place} %": shades for place in range(3)}}
    samples.save(cells, tmp_path / "sheet.png", title="")
    grey = image.imread(tmp_path / "sheet.png")[..., 0]
    left = grey[:, int(grey.shape[1] * (1.9 + 0.1) / 9.0)]  # through the first samples of a cell
    dark, fifth = (np.flatnonzero(np.isclose(left, shade, atol=0.01)) for shade in (0.0, 120 / 255))
    assert len(dark) and len(fifth) and dark.max() < fifth.min() < grey.shape[0]
