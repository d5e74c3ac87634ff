"""metrics.jsonl: one JSON object a line, {"step": 10, "loss": 0.3, ...}."""

import json
from pathlib import Path

from accelerate.tracking import GeneralTracker

from liftplace.common.files import write_text_whole

FILE_NAME = "metrics.jsonl"


class JsonLinesTracker(GeneralTracker):
    """Appends to metrics.jsonl what `accelerator.log` is given."""

    name = "jsonl"
    requires_logging_directory = False
    main_process_only = True

    def __init__(self, path: str | Path) -> None:
        super().__init__()
        self.path = Path(path)

    @property
    def tracker(self) -> Path:
        return self.path

    def log(self, values: dict, step: int | None = None, **kwargs) -> None:
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")


def read_metrics(path: str | Path) -> list[dict]:
    """The lines of a metrics.jsonl; a last line that was cut off is left out."""
    lines = Path(path).read_text(encoding="utf-8").splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


def forget_after(path: str | Path, step: int) -> None:
    """Drops the lines after `step`, which the resumed run writes again."""
    path = Path(path)
    if not path.exists():
        return
    kept = [line for line in read_metrics(path) if line["step"] <= step]
    write_text_whole(path, "".join(json.dumps(line) + "\n" for line in kept))
