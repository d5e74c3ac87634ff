import base64
from dataclasses import replace

import pytest
import torch

from liftplace.analyze import html_report
from tests.analyze.analyses import analysis_of, carried_of, errors_of
from tests.analyze.html_page import Page


def test_the_page_holds_every_picture_that_is_written(tmp_path):
    analysis = analysis_of((0.03, 0.2), labels=["<a>/run", "b"])
    files = html_report.write_report(analysis, tmp_path)
    names = [
        "errors",
        "carried",
        "explained",
        "slopes",
        "weights",
        "samples",
        "distances",
        "capacity",
    ]
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
    assert page.texts[:2] == ["1  <a>/run: advice 0", "2  b: advice 1"]
    assert "1  <a>/run" in page.cells and "{" not in text.split("</style>")[1]


def test_without_samples_or_sizes_their_pictures_are_left_out(tmp_path):
    files = html_report.write_report(analysis_of((0.1,), sampled=False), tmp_path)
    assert not {"samples", "distances", "capacity"} & set(files)
    files = html_report.write_report(analysis_of((0.1, 0.1)), tmp_path)
    assert "samples" in files and "capacity" not in files


WHERE = "t > 500 / below"


def test_summary_tells_the_halves_of_the_timesteps_apart():
    analysis = analysis_of((0.03,), group_sizes=(4,))
    first = analysis.students[0]
    errors = replace(
        first.errors,
        timesteps=torch.tensor([250.0, 500.0, 750.0]),
        total=torch.tensor([1.0, 3.0, 8.0]),
        coarse=torch.tensor([1.0, 0.0, 6.0]),
        fine=torch.tensor([0.0, 3.0, 2.0]),
        place_fine=torch.tensor([[0.0, 0.5, 0.4]]),
    )
    carried = replace(
        first.carried,
        timesteps=torch.tensor([900.0, 600.0, 300.0]),
        factor=torch.ones(3),
        coarse=torch.tensor([16.0, 9.0, 0.0]),
        fine=torch.tensor([50.0, 25.0, 4.0]),
    )
    student = replace(first, errors=errors, carried=carried)
    rows = html_report.summary(replace(analysis, students=(student,)))
    found = {name: values for name, *values in rows}
    assert found["share of the teacher"] == ["100.0 %", "3.0 %"]
    assert found["predicts"] == ["noise", ""]
    assert found["norms that lose the mean"] == ["0 of 23", "17 of 23, the last too"]
    assert found[f"total error, {WHERE}"] == ["", "8 / 2"]
    assert found[f"coarse error, {WHERE}"] == ["", "6 / 0.5"]
    # Of the means, no mean of the shares.
    assert found[f"coarse share (LIFT explains), {WHERE}"] == ["", "75.0 % / 25.0 %"]
    assert found[f"PLACE 4 explains, {WHERE}"] == ["", "95.0 % / 87.5 %"]
    assert found[f"coarse error moves the image by, {WHERE}"] == ["", "5 / 0"]
    assert found[f"fine error moves the image by, {WHERE}"] == ["", "8.66 / 2"]
    assert found[f"coarse share of what is carried, {WHERE}"] == ["", "25.0 % / 0.0 %"]
    assert found["FD-Lite0"][0] == "11 (9.9\u00a0to\u00a013.2)"
    assert found["FD-Lite0, real / real"] == ["5", "5"]
    ways = ("teacher's path", "own samples")
    first, second = (found[f"FD-Lite0, corrected, {way}"][1] for way in ways)
    assert first.startswith(f"{16 / 0.03**0.4:.4g}") and second.startswith(f"{12 / 0.03**0.3:.4g}")
    assert {len(row) for row in rows} == {3}


def test_a_half_without_timesteps_and_a_model_without_norms():
    analysis = analysis_of((0.03,), steps=1, sampled=False)  # at t = 25
    student = replace(analysis.students[0], norms=None)
    found = {
        name: values[1:]
        for name, *values in html_report.summary(replace(analysis, students=(student,)))
    }
    assert found["norms that lose the mean"] == ["no group norms"]
    assert found[f"total error, {WHERE}"][0].startswith("– / 0.")
    assert found[f"coarse share (LIFT explains), {WHERE}"][0].startswith("– / ")


def test_numbers_by_step_of_sampling():
    errors = errors_of(0.1)
    carried = carried_of(errors, steps=4)
    header, *rows = html_report.step_table(carried)
    assert header[0] == "timestep" and [row[0] for row in rows] == ["990", "690", "390", "90"]
    share = carried.coarse[1] / (carried.coarse[1] + carried.fine[1])
    assert rows[1][-1] == f"{100 * share.item():.1f} %"
    assert rows[1][2] == f"{carried.coarse[1].sqrt().item():.4g}"


def test_numbers_by_timestep():
    errors = errors_of(0.1, steps=3, group_sizes=(4, 16))
    header, *rows = html_report.timestep_table(errors)
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
        student.errors,
        total=nothing,
        coarse=nothing,
        fine=nothing,
        place_fine=torch.zeros_like(student.errors.place_fine),
    )
    student = replace(student, errors=errors, carried=carried_of(errors))
    analysis = replace(analysis, students=(student,))
    assert html_report.write_report(analysis, tmp_path)["errors"].is_file()
    found = {name: values for name, *values in html_report.summary(analysis)}
    assert found[f"coarse share (LIFT explains), {WHERE}"][1] == "– / –"


@pytest.mark.parametrize(
    "labels", [["a/b", "a-b", "c"], ["A", "a", "é"], ["x", "..", "y z"]], ids=str
)
def test_names_of_maps_are_files_that_differ(labels):
    names = html_report.map_names(analysis_of((0.1, 0.2, 0.3), labels=labels))
    assert len({name.lower() for name in names}) == 3
    assert not any("/" in name or " " in name for name in names)
