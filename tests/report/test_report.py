import base64

import pytest

from liftplace.common.errors import UsageError
from liftplace.report.report import ReportConfig, report, settings_table, summary
from liftplace.report.runs import read_runs
from tests.analyze.html_page import Page
from tests.report.run_folders import falling, write_metrics, write_run


@pytest.fixture
def folders(tmp_path):
    a = write_run(tmp_path / "a", falling(60, every=2), samples_at=(30, 60), max_train_steps=60)
    b = write_run(tmp_path / "<b>", falling(30), learning_rate=0.5, max_train_steps=60)
    return a, b


def test_the_page_is_one_file_with_its_pictures_inside(folders, tmp_path, capsys):
    out = tmp_path / "report"
    report(ReportConfig(runs=folders, output_dir=str(out)))
    names = ["losses.png", "report.html", "samples.png", "training.png"]
    assert sorted(path.name for path in out.iterdir()) == names
    text = (out / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert "script" not in page.tags and "link" not in page.tags and "http" not in text
    assert all(link.startswith("data:image/png;base64,") for link in page.links)
    inside = [base64.b64decode(image["src"].split(",")[1]) for image in page.images]
    beside = [(out / f"{name}.png").read_bytes() for name in ("losses", "training", "samples")]
    assert inside == beside
    assert page.images[0]["width"] == "900" and all(image["alt"] for image in page.images)
    assert "unfinished: step 30 of 60" in page.cells and "<b>" in page.cells
    printed = capsys.readouterr().out
    assert "finished: step 60 of 60" in printed and str(out / "report.html") in printed


def test_summary_is_the_mean_of_the_last_twentieth(tmp_path):
    lines = [{"step": step, "loss": float(step)} for step in range(1, 101)]
    lines[-1]["task"] = 0.25
    write_metrics(tmp_path / "a", lines)
    write_metrics(
        tmp_path / "b",
        [
            {"step": 1, "loss": 4.0, "gradient_norm": float("inf")},
            {"step": 2, "loss": 2.0, "gradient_norm": 1.0},
        ],
    )
    rows = summary(read_runs((str(tmp_path / "a"), str(tmp_path / "b"))))
    assert rows == [
        ["run", "state", "images a step", "loss", "task", "gradient_norm"],
        ["a", "step 100", "", "98", "0.25", "–"],
        ["b", "step 2", "", "2", "–", "1 (1 not finite)"],
    ]


def test_settings_are_the_main_ones_and_those_that_differ(folders, tmp_path):
    write_metrics(tmp_path / "bare", falling(2))
    rows = settings_table(read_runs((*folders, str(tmp_path / "bare"))))
    assert rows[0] == ["setting", "a", "<b>"]
    found = {name: values for name, *values in rows[1:]}
    assert found["learning_rate"] == ["0.01", "0.5"] and found["use_ema"] == ["True", "True"]
    assert found["student_block_out_channels"] == ["4 4", "4 4"] and found["loss"][0] == "place"
    assert "random_flip" not in found and "output_dir" not in found and "student" not in found


def test_runs_without_steps_or_records_are_reported(tmp_path):
    write_metrics(tmp_path / "bare", [{"step": 1, "loss": 1.0, "gradient_norm": 0.0}])
    empty = write_run(tmp_path / "empty", [])
    (tmp_path / "empty" / "metrics.jsonl").touch()
    report(ReportConfig(runs=(str(tmp_path / "bare"), empty), output_dir=str(tmp_path / "out")))
    page = Page((tmp_path / "out" / "report.html").read_text(encoding="utf-8"))
    assert "nothing logged yet" in page.cells and len(page.images) == 2


def test_nothing_is_left_behind_where_a_picture_cannot_be_read(tmp_path):
    folder = write_run(tmp_path / "a", [{"step": 1, "loss": 1.0}], samples_at=(1,))
    (tmp_path / "a" / "samples" / "student-000001.png").write_text("no picture")
    with pytest.raises(UsageError, match="student-000001.png"):
        report(ReportConfig(runs=(folder,), output_dir=str(tmp_path / "out")))
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_what_is_missing_or_taken_is_named(folders, tmp_path):
    with pytest.raises(UsageError, match="no RUN is given"):
        ReportConfig().check_complete()
    with pytest.raises(UsageError, match="--output_dir is empty"):
        ReportConfig(runs=folders, output_dir="").check_complete()
    with pytest.raises(UsageError, match="--output_dir .*a is not empty"):
        ReportConfig(runs=folders, output_dir=folders[0]).check_complete()
