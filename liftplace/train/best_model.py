"""The best model of a run, kept in a folder of its own."""

import json
import math
from pathlib import Path

from liftplace.common.files import (
    flush,
    partial_of,
    recover_folder,
    replace_folder,
    write_text_whole,
)
from liftplace.evaluate.evaluator import Score
from liftplace.models.noise import NoiseProcess
from liftplace.train.export import BEST
from liftplace.train.trainer import ModelTrainer


class BestModel:
    """The best model of one trainer: a diffusers folder with best.json, which says its scores.

    The folder is whole or not there. Should a run be killed in the instant in which a new one takes
    the place of the old, one of them is put back when the run is resumed.

    Args:
        folder: of the model.
        metric: one of --evaluation_metrics; the model is the best by it.
        basis: what else its value depends on. A model with another basis is not compared.
        process, base_pipeline: of `ModelTrainer.save`.
    """

    def __init__(
        self,
        folder: Path,
        metric: str,
        basis: dict,
        process: NoiseProcess,
        base_pipeline: str | Path | None = None,
    ) -> None:
        self.folder, self.metric, self.basis = folder, metric, basis
        self._process, self._base_pipeline = process, base_pipeline
        self._partial = partial_of(folder)

    def is_better(self, scores: dict[str, Score]) -> bool:
        """Whether these are better than those of the folder; never if the metric's is not finite.

        Called on the main process only.
        """
        recover_folder(self.folder, _is_complete)
        score = scores[self.metric]
        if not math.isfinite(score.value):
            return False
        if not (self.folder / BEST).is_file():
            return True
        record = json.loads((self.folder / BEST).read_text(encoding="utf-8"))
        if (record["metric"], record["basis"]) != (self.metric, self.basis):
            return True
        better = score.value < record["value"]
        return better if score.better == "lower" else score.value > record["value"]

    def keep(self, trainer: ModelTrainer, step: int, scores: dict[str, Score]) -> None:
        """Put the trainer's final model in the folder. Every process of the run calls this."""
        trainer.save(self._partial, self._process, self._base_pipeline)
        if not trainer.is_main_process:
            return
        record = {
            "step": step,
            "metric": self.metric,
            "value": scores[self.metric].value,
            "scores": {
                score.name: {"value": score.value, "better": score.better}
                for score in scores.values()
            },
            "basis": self.basis,
        }
        flush(self._partial)
        # Last: a folder that has this file is complete.
        write_text_whole(self._partial / BEST, json.dumps(record, indent=2) + "\n")
        replace_folder(self.folder)


def _is_complete(folder: Path) -> bool:
    return (folder / BEST).is_file()
