from liftplace.train.metrics import JsonLinesTracker, forget_after, read_metrics


def test_lines_come_back(tmp_path):
    tracker = JsonLinesTracker(tmp_path / "metrics.jsonl")
    tracker.log({"loss": 0.1}, step=1)
    tracker.log({"loss": 1e-9}, step=2)
    assert read_metrics(tracker.path) == [{"step": 1, "loss": 0.1}, {"step": 2, "loss": 1e-9}]


def test_later_lines_and_a_line_cut_off_are_dropped(tmp_path):
    tracker = JsonLinesTracker(tmp_path / "metrics.jsonl")
    for step in (1, 2, 3):
        tracker.log({"loss": step / 7}, step=step)
    before = tracker.path.read_text().splitlines(keepends=True)
    with open(tracker.path, "a") as file:
        file.write('{"step": 4, "lo')  # killed while writing
    assert [line["step"] for line in read_metrics(tracker.path)] == [1, 2, 3]
    forget_after(tracker.path, 2)
    assert tracker.path.read_text() == "".join(before[:2])


def test_nothing_to_forget(tmp_path):
    forget_after(tmp_path / "metrics.jsonl", 2)
    assert not any(tmp_path.iterdir())
