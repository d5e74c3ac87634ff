"""The sheet shows each cell's own samples, in its place."""

import numpy as np
from matplotlib import image
from PIL import Image

from benchmarks.study import reading, samples
from tests.benchmarks.study.rows_of_studies import row, save


def test_every_picture_stands_in_its_row_and_column(tmp_path):
    rows = [row("capacity", method, student=student, seed=seed)
            for method in ("LIFT", "no KD") for student in ("2 %", "10 %")
            for seed in range(2)]  # fmt: skip
    files = save(tmp_path, rows)
    files.samples_folder.mkdir()
    for each in rows:
        if each["seed"] == 0 and (each["method"], each["student"]) != ("LIFT", "2 %"):
            files.picture(each).write_bytes(b"")
    teacher = files.teacher_picture(rows[0])
    teacher.parent.mkdir()
    teacher.write_bytes(b"")
    (study,) = reading.find(tmp_path)
    found = samples.sheet(study.rows, study.axes, study.files)
    wanted = {(each["method"], each["student"]): files.picture(each)
              for each in rows if each["seed"] == 0}  # fmt: skip
    assert found == {
        "teacher": {"10 %": teacher, "2 %": teacher},
        "no KD": {name: wanted["no KD", name] for name in ("10 %", "2 %")},
        "LIFT": {"10 %": wanted["LIFT", "10 %"]},
    }


def test_many_columns_stack_their_samples_in_two_lines(tmp_path):
    shades = np.repeat(np.arange(8, dtype=np.uint8) * 30, 16)
    Image.fromarray(np.tile(shades, (16, 1))).save(tmp_path / "a.png")
    found = {"LIFT": {f"{place} %": tmp_path / "a.png" for place in range(3)}}
    samples.save_sheet(found, tmp_path / "sheet.png", title="")
    grey = image.imread(tmp_path / "sheet.png")[..., 0]
    height = grey.shape[0]
    left = grey[:, int(grey.shape[1] * (1.9 + 0.1) / 9.0)]  # through the first samples of a cell
    dark, fifth = (np.flatnonzero(np.isclose(left, shade, atol=0.01)) for shade in (0.0, 120 / 255))
    assert len(dark) and len(fifth) and dark.max() < fifth.min() < height
