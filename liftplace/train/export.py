"""The folder that a run leaves: a diffusers pipeline, what it was made with, and its model card."""

import json
from dataclasses import asdict
from pathlib import Path

from huggingface_hub import HfApi, ModelCard, ModelCardData

from liftplace import __version__
from liftplace.common.errors import UsageError
from liftplace.common.files import write_text_whole
from liftplace.models.costs import count_parameters
from liftplace.models.hub import commit_of
from liftplace.models.loading import LoadedModel
from liftplace.models.saving import RECORD, read_record
from liftplace.models.snippet import usage_snippet
from liftplace.train.config import DistillConfig
from liftplace.train.run_config import RunConfig
from liftplace.train.run_folder import METRICS, read_metrics

BEST = "best.json"
EVALUATION = "evaluation/"
ON_THE_CARD = (
    *("loss", "max_train_steps", "train_batch_size", "gradient_accumulation_steps"),
    *("learning_rate", "lr_scheduler", "mixed_precision", "use_ema", "seed"),
)
NEVER_PUSHED = ["checkpoint-*", ".*", "logs/*"]


def describe(config: DistillConfig, student: LoadedModel, teacher: LoadedModel) -> None:
    """Write liftplace_config.json and the model card beside the saved student."""
    _record_student(config, student, teacher)
    _write_model_card(config, student, teacher)


def _record_student(config: DistillConfig, student: LoadedModel, teacher: LoadedModel) -> None:
    """Write liftplace_config.json, also beside the best model: which block of the teacher each
    block of the student stands for, and how the student was made."""
    record = read_record(student.folder)
    if "layer_map" not in record:
        of_teacher = teacher.family.blocks(teacher.model)
        of_student = student.family.blocks(student.model)
        record["layer_map"] = {name: name for name in of_student if name in of_teacher}
    record |= {"liftplace": __version__, "teacher": config.pretrained_teacher_name_or_path}
    record["distill"] = asdict(config)
    if commit := commit_of(teacher.folder):
        record["teacher_commit"] = commit
    folder = Path(config.output_dir)
    for place in (folder, folder / "best"):
        if place.is_dir():
            write_text_whole(place / RECORD, json.dumps(record, indent=2) + "\n")


def _write_model_card(config: DistillConfig, student: LoadedModel, teacher: LoadedModel) -> None:
    """Write README.md: teacher, recipe, figures, and the lines that load the student."""
    folder = Path(config.output_dir)
    name = config.pretrained_teacher_name_or_path
    of_hub = not Path(name).exists()
    takes_text = bool(student.family.embeddings(student.model.config))
    data = ModelCardData(
        library_name="diffusers",
        base_model=name if of_hub else None,
        pipeline_tag="text-to-image" if takes_text else "unconditional-image-generation",
        tags=["liftplace", "knowledge-distillation", "diffusion"],
    )
    sections = [
        f"# {folder.resolve().name}",
        f"A student of `{name if of_hub else Path(name).resolve().name}`, distilled "
        f"with liftplace {__version__} (LIFT and PLACE, arXiv 2605.19729).",
        _sizes(student, teacher),
        _recipe(config),
        _figures(folder),
        _usage(config, student),
    ]
    card = "\n\n".join(section for section in sections if section)
    ModelCard(f"---\n{data.to_yaml()}\n---\n\n{card}\n").save(folder / "README.md")


def _sizes(student: LoadedModel, teacher: LoadedModel) -> str:
    small, large = count_parameters(student.model), count_parameters(teacher.model)
    return (
        "| | parameters | share |\n|---|---|---|\n"
        f"| teacher | {large:,} | 100 % |\n| student | {small:,} | {small / large:.1%} |"
    )


def _recipe(config: DistillConfig) -> str:
    rows = "\n".join(f"| {name} | {getattr(config, name)} |" for name in ON_THE_CARD)
    return f"## Recipe\n\n| setting | value |\n|---|---|\n{rows}\n\nAll of them: `config.yaml`."


def _figures(folder: Path) -> str:
    log = folder / METRICS
    lines = read_metrics(log) if log.exists() else []
    if not lines:
        return ""
    last = lines[-1]
    scored = [line for line in lines if any(EVALUATION in name for name in line)]
    terms = {name: value for name, value in last.items() if EVALUATION not in name}
    pictures = sorted((folder / "samples").glob("*.png"))
    picture = f"\n\n![samples](samples/{pictures[-1].name})" if pictures else ""
    return (
        f"## Figures\n\n{_scores(folder, scored[-1]) if scored else ''}"
        f"Training terms at step {last['step']} (no measure of image quality):\n\n"
        f"{_table('term', terms)}{picture}"
    )


def _scores(folder: Path, line: dict) -> str:
    """The scores of the model that is saved, and where there is a better one."""
    scores = {name.split(EVALUATION)[1]: x for name, x in line.items() if EVALUATION in name}
    text = f"Scores while training, at step {line['step']}:\n\n{_table('score', scores)}\n\n"
    record = folder / "best" / BEST
    if record.is_file():
        best = json.loads(record.read_text(encoding="utf-8"))
        text += f"The best model by {best['metric']}, {best['value']:.5g}, is that of step "
        text += f"{best['step']}, in `best`.\n\n"
    return text


def _table(what: str, values: dict) -> str:
    rows = (f"| {name} | {value:.5g} |" for name, value in values.items() if name != "step")
    return "\n".join([f"| {what} | value |", "|---|---|", *rows])


def _usage(config: DistillConfig, student: LoadedModel) -> str:
    """Of the repository on the Hub where the student goes to one, of the folder otherwise."""
    name = config.hub_model_id if config.push_to_hub else None
    snippet = usage_snippet(config.output_dir, student.model, name)
    return f"## Use\n\n```python\n{snippet}\n```"


def check_push(config: RunConfig) -> None:
    """With --push_to_hub, make the repository before the run starts.

    Raises:
        UsageError: it cannot be made: no token, no network, no right.
    """
    if not config.push_to_hub:
        return
    try:
        HfApi().create_repo(_repository(config), exist_ok=True)
    except (OSError, ValueError) as error:  # the Hub's own errors are OSErrors
        reason = " ".join(str(error).split())
        raise UsageError(f"--push_to_hub: cannot make {_repository(config)}: {reason}") from error


def push(config: RunConfig) -> None:
    """With --push_to_hub, upload the folder without its checkpoints."""
    if not config.push_to_hub:
        return
    repository = HfApi().create_repo(_repository(config), exist_ok=True).repo_id
    HfApi().upload_folder(
        repo_id=repository,
        folder_path=config.output_dir,
        commit_message="End of training",
        ignore_patterns=NEVER_PUSHED,
    )


def _repository(config: RunConfig) -> str:
    return config.hub_model_id or Path(config.output_dir).resolve().name
