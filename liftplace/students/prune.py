"""`liftplace prune`: a small student of a teacher."""

import json
from dataclasses import asdict
from pathlib import Path

from liftplace import __version__
from liftplace.common.files import whole_folder
from liftplace.models.hub import commit_of
from liftplace.models.loading import load_model
from liftplace.models.norms import norm_warning
from liftplace.models.saving import RECORD, save_pipeline
from liftplace.students.build import build_student
from liftplace.students.config import PruneConfig
from liftplace.students.report import check_trains, compare


def prune(config: PruneConfig) -> None:
    """Write the student into `config.output_dir`, with liftplace_config.json, and print what it
    costs: a pipeline of diffusers with the teacher's other parts, or its folder alone where the
    teacher has no scheduler.

    Raises:
        UsageError: whatever is wrong with the settings, the teacher or the data. Nothing is left
            in the folder then.
    """
    config.check_complete()
    teacher = load_model(config.pretrained_teacher_name_or_path, config.revision, config.variant)
    process = None if teacher.scheduler_config is None else teacher.process()
    student, layer_map = build_student(config, teacher)
    check_trains(student, config.seed)
    record = {
        "liftplace": __version__,
        "teacher": config.pretrained_teacher_name_or_path,
        "prune": asdict(config),
        "layer_map": layer_map,
    }
    if commit := commit_of(teacher.folder):
        record["teacher_commit"] = commit
    with whole_folder(Path(config.output_dir).resolve()) as folder:
        if process is None:
            student.save_pretrained(folder)
        else:
            save_pipeline(student, process, folder, teacher.pipeline)
        text = json.dumps(record, indent=2) + "\n"
        (folder / RECORD).write_text(text, encoding="utf-8")
    print(compare(student, teacher.model))
    if (problem := norm_warning(student)) and not norm_warning(teacher.model):
        print(f"Warning: {problem}. Use fewer norm groups")
    print(f"{config.output_dir}: give it as --student to liftplace distill")
