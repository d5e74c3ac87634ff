import base64
from dataclasses import replace

import pytest
import torch

from liftplace.analyze import pages
from tests.analyze.analyses import analysis_of, errors_of
from tests.analyze.html_page import Page


def test_the_page_holds_every_picture_that_is_written(tmp_path):
    analysis = analysis_of((0.03, 0.2), labels=["<a>/run", "b"])
    files = pages.write_report(analysis, tmp_path)
    names = ["errors", "explained", "slopes", "weights", "samples", "distances", "capacity"]
    names += ["maps--a-run", "maps-b"]
    assert list(files) == [*names, "report"]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        path.name for path in files.values()
    )
    text = files["report"].read_text(encoding="utf-8")
    page = Page(text)
    inside = [base64.b64decode(image["src"].split(",")[1]) for image in page.images]
    assert inside == [files[name].read_bytes() for name in names]
    assert "http" not in text and not page.tags & {"script", "link"}
    assert len({image["alt"] for image in page.images}) == len(names)
    assert "1  <a>/run" in page.cells and "{" not in text.split("</style>")[1]


def test_without_samples_or_sizes_their_pictures_are_left_out(tmp_path):
    files = pages.write_report(analysis_of((0.1,), sampled=False), tmp_path)
    assert not {"samples", "distances", "capacity"} & set(files)
    files = pages.write_report(analysis_of((0.1, 0.1)), tmp_path)
    assert "samples" in files and "capacity" not in files


def test_summary_is_of_means_over_the_timesteps():
    analysis = analysis_of((0.03,), group_sizes=(4,))
    first = analysis.students[0]
    errors = replace(
        first.errors,
        total=torch.tensor([1.0, 3.0]), coarse=torch.tensor([1.0, 0.0]),
        fine=torch.tensor([0.0, 3.0]), place_fine=torch.tensor([[0.0, 0.5]]),
    )  # fmt: skip
    rows = pages.summary(replace(analysis, students=(replace(first, errors=errors),)))
    found = {name: values for name, *values in rows}
    assert found["share of the teacher"] == ["100.0 %", "3.0 %"]
    assert found["total error"] == ["", "2"] and found["coarse error"] == ["", "0.5"]
    assert found["LIFT explains"] == ["", "25.0 %"]  # of the means, no mean of the shares
    assert found["PLACE 4 explains"] == ["", "87.5 %"]
    assert found["FD-Lite0"][0] == "11 (9.9\u00a0to\u00a013.2)"
    assert found["FD-Lite0, real / real"] == ["5", "5"] and "FD-Lite0, corrected" in found
    assert {len(row) for row in rows} == {3}


def test_numbers_by_timestep():
    errors = errors_of(0.1, steps=3, group_sizes=(4, 16))
    header, *rows = pages.timestep_table(errors)
    assert len(header) == 11 and all(len(row) == 11 for row in rows)
    assert [row[0] for row in rows] == ["25", "500", "975"]
    lift = 1 - (errors.fine[1] / errors.total[1]).item()
    place = 1 - (errors.place_fine[1, 1] / errors.total[1]).item()
    assert rows[1][header.index("LIFT explains")] == f"{100 * lift:.1f} %"
    assert rows[1][header.index("PLACE 16 explains")] == f"{100 * place:.1f} %"
    assert rows[1][header.index("w of LIFT")] == "0.600"


def test_a_student_equal_to_its_teacher_is_reported(tmp_path):
    analysis = analysis_of((0.1,), sampled=False)
    (student,) = analysis.students
    nothing = torch.zeros_like(student.errors.total)
    errors = replace(
        student.errors, total=nothing, coarse=nothing, fine=nothing,
        place_fine=torch.zeros_like(student.errors.place_fine),
    )  # fmt: skip
    analysis = replace(analysis, students=(replace(student, errors=errors),))
    assert pages.write_report(analysis, tmp_path)["errors"].is_file()
    assert dict((name, rest) for name, *rest in pages.summary(analysis))["LIFT explains"][1] == "–"


@pytest.mark.parametrize(
    "labels", [["a/b", "a-b", "c"], ["A", "a", "é"], ["x", "..", "y z"]], ids=str
)
def test_names_of_maps_are_files_that_differ(labels):
    names = pages.map_names(analysis_of((0.1, 0.2, 0.3), labels=labels))
    assert len({name.lower() for name in names}) == 3
    assert not any("/" in name or " " in name for name in names)
