"""Pages say what the rows say: a page, or a ratio in prose, that is out of date fails here."""

import pytest

from benchmarks.flags import RESULTS
from benchmarks.markdown import fill, table
from benchmarks.plot import DOCS, written
from benchmarks.study.pages import Numbers, pages
from tests.benchmarks.study.rows_of_studies import row, save, seeds


def test_the_committed_pages_are_those_of_the_committed_rows():
    texts = written(RESULTS, DOCS)
    assert len(texts) > 10
    stale = [page.name for page, text in texts.items() if page.read_text() != text]
    assert not stale, "run `python -m benchmarks plot`"


def test_a_study_has_a_page_with_its_question_command_figures_and_tables(tmp_path):
    save(tmp_path, seeds("capacity", "LIFT") + seeds("capacity", "output KD"))
    save(tmp_path, [row("why", "LIFT", variant="as published", fd=123.0)])
    texts = {path.name: text for path, text in pages(tmp_path, tmp_path / "docs").items()}
    text = texts["capacity.md"]
    assert text.startswith("# Who wins at which size of the student?\n")
    assert "    python -m benchmarks study capacity --device cpu\n" in text
    assert text.index("(capacity_cpu.png)") < text.index("| --- |")
    assert "| LIFT, as published | 123 (one seed), at 0.003 |" in texts["why.md"]  # of no study


@pytest.fixture
def numbers(tmp_path):
    rows = seeds("long", "LIFT", (200.0, 220.0), step=500) + seeds("long", "LIFT", (90.0, 90.0))
    save(tmp_path, rows + seeds("long", "output KD", (100.0, 110.0), step=500))
    return Numbers(tmp_path)


def test_numbers_of_prose_come_from_the_rows(numbers):
    assert numbers.value("long fd LIFT @ 1,000 steps") == "90"
    assert numbers.value("long fd LIFT @ 500 steps / output KD") == "2"
    assert numbers.ratio("long fd LIFT @ 500 steps / output KD") == "2 (2 to 2)"
    assert numbers.ratio("long fd LIFT @ 1,000 steps / LIFT @ 500 steps").startswith("0.429 (")
    text = "<!-- value long fd LIFT\n@ 1,000 steps -->80<!-- end --> <!-- other -->"
    filled = fill(text, {"value": numbers.value, "ratio": numbers.ratio})
    assert filled == text.replace("80", "90")


@pytest.mark.parametrize("cell", ["LIFT", "PLACE", "LIFT @ 900 steps"])
def test_a_number_must_be_of_one_setting(numbers, cell):
    with pytest.raises(ValueError, match="must name one setting, not [02] settings"):
        numbers.value(f"long fd {cell}")


def test_a_pipe_in_a_label_does_not_end_a_cell_of_a_table():
    assert table(["", "|means|"], [["a", 1]]).splitlines()[0] == r"|  | \|means\| |"
