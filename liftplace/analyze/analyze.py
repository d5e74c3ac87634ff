"""`liftplace analyze`: where students differ from their teacher, as numbers and as a report."""

import json
import re
from dataclasses import asdict, fields, is_dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Subset
from tqdm.auto import tqdm

from liftplace import __version__
from liftplace.analyze.advice import advise
from liftplace.analyze.analysis import Analysis, Samples, StudentAnalysis
from liftplace.analyze.config import AnalyzeConfig
from liftplace.analyze.html_report import advice_lines, summary, write_report
from liftplace.analyze.maps import compute_maps
from liftplace.analyze.model_errors import measure_errors, spread_timesteps
from liftplace.analyze.propagation import propagate, propagation_factors
from liftplace.analyze.samples import KEPT, KINDS, TEACHER, GroupSampler, sample_and_score
from liftplace.common.distributed import device_of, distributed_state, main_process_decides
from liftplace.common.errors import UsageError
from liftplace.common.files import write_text_whole
from liftplace.common.text_table import text_table
from liftplace.data import CachedLatents, load_dataset, refuse_broken
from liftplace.data.encoder import Encoder
from liftplace.data.size import image_size
from liftplace.evaluate.conditions import draw_conditions
from liftplace.evaluate.networks import hash_of_weights, load_network
from liftplace.evaluate.parts import claim
from liftplace.evaluate.sampling import Sampler, default_batch_size
from liftplace.evaluate.subsets import shuffled
from liftplace.models.costs import count_macs, count_parameters
from liftplace.models.loading import DTYPES, LoadedModel, check_pair, load_model, set_precision
from liftplace.models.noise import NoiseProcess
from liftplace.models.norms import norms_of
from liftplace.plots.axes import labels_of

RESULTS = "analysis.json"
MOST_AT_ONCE = 32  # images: of a teacher and its students
MAP_GROUP_SIZE = 16  # the paper's
SAMPLED = (  # settings that the samples depend on
    "teacher",
    "student",
    "data",
    "split",
    "num_samples",
    "num_inference_steps",
    "guidance_scale",
    "prompts",
    "class_labels",
    "scope",
    "mixed_precision",
    "batch_size",
    "seed",
)


def analyze(config: AnalyzeConfig) -> dict | None:
    """Sample, measure, write the report and analysis.json, and print a table.

    The noise process, VAE and text encoders are the teacher's. Several processes share the
    sampling; the main process does the rest.

    Returns:
        The content of analysis.json; None on the other processes.

    Raises:
        UsageError: teacher, students, data, network and folder do not fit.
        NonFiniteError: outputs or samples that are not finite.
        OSError: a file could not be written.
    """
    config.check_complete()
    state = distributed_state()
    device = device_of(state)
    teacher, students = _load(config)
    process = teacher.process()
    encoder = Encoder(teacher, image_size(config)).to(device, DTYPES[config.mixed_precision])
    if config.batch_size is None:
        config = replace(config, batch_size=default_batch_size(encoder.resolution, MOST_AT_ONCE))
    dataset = _dataset(config, encoder)
    _check_sizes(config, encoder, process)
    network = None
    if config.num_samples:
        network = load_network(config.feature_network, config.feature_weights).to(device)
    sampler = Sampler(process, encoder)
    record = _record(config, sampler, network, teacher, students)
    for model in (teacher, *students.values()):
        set_precision(model.model, device, config.mixed_precision)
    models = {label: student.model for label, student in students.items()}

    samples = evaluator = labels = None
    if network is None:
        main_process_decides(state, partial(claim, Path(config.output_dir), record))
    else:
        given = {"prompts": config.prompts, "class_labels": config.class_labels}
        drawn = draw_conditions(dataset, encoder, config.num_samples, **given)
        conditioned = drawn.given_to(config)
        group = GroupSampler(conditioned, sampler, network, teacher.model, models)
        record |= drawn.record()
        scored = sample_and_score(group, dataset, record, device)
        samples, evaluator = scored or (None, None)
        given = {"prompts": conditioned.prompts, "class_labels": conditioned.class_labels}
        labels = sampler.labels(min(KEPT, config.num_samples), **given)
    if not state.is_main_process:
        return None
    students = _measure(config, teacher, models, encoder, dataset, samples)
    analysis = Analysis(
        teacher=config.teacher,
        teacher_parameters=count_parameters(teacher.model),
        teacher_macs=count_macs(teacher.model),
        teacher_norms=norms_of(teacher.model),
        prediction_type=process.prediction_type,
        num_train_timesteps=process.scheduler.config.num_train_timesteps,
        teacher_samples=samples and samples[TEACHER],
        students=students,
        scope=config.scope,
        elements=_row(config, encoder),
        num_samples=config.num_samples,
        num_inference_steps=config.num_inference_steps,
        network=network and network.name,
        num_components=evaluator and evaluator.num_components(config.num_samples),
        sample_labels=labels and tuple(labels),
        few_images=evaluator and evaluator.few_images_note(config.num_samples),
    )
    return _write(config, record, analysis)


def _load(config: AnalyzeConfig) -> tuple[LoadedModel, dict[str, LoadedModel]]:
    """The teacher, and the students by label."""
    teacher = load_model(config.teacher)
    labels = labels_of([Path(name).resolve() for name in config.student])
    students = {label: load_model(name) for label, name in zip(labels, config.student, strict=True)}
    for student in students.values():
        check_pair(student, teacher)
    return teacher, students


def _dataset(config: AnalyzeConfig, encoder: Encoder) -> Dataset:
    dataset = load_dataset(
        config.data,
        resolution=encoder.resolution,
        split=config.split,
        resize_mode=config.resize_mode or "crop",
        labels=encoder.takes_labels,
        captions=encoder.takes_captions,
        config_name=config.dataset_config_name,
        image_column=config.image_column,
        caption_column=config.caption_column,
        label_column=config.label_column,
    )
    if isinstance(dataset, CachedLatents) and config.num_samples:
        raise UsageError(
            f"--data {config.data} holds latents, and samples are scored against images: name "
            "the images, or give --num_samples 0"
        )
    encoder.check(dataset)
    for flag in ("num_images", "num_samples"):
        if len(dataset) < getattr(config, flag):
            raise UsageError(
                f"--{flag} is {getattr(config, flag)}, but --data {config.data} has only "
                f"{len(dataset)} images in its split {config.split}: give --{flag} {len(dataset)} "
                "or less"
            )
    refuse_broken(dataset)
    return dataset


def _measure(
    config: AnalyzeConfig,
    teacher: LoadedModel,
    models: dict[str, nn.Module],
    encoder: Encoder,
    dataset: Dataset,
    samples: dict[str, Samples] | None,
) -> tuple[StudentAnalysis, ...]:
    """Errors and maps of the students, by label in `models`, beside their samples."""
    process = teacher.process()
    latents, conditions = read_images(dataset, encoder, config.num_images, config.batch_size)
    inputs = (teacher.model, process, latents, conditions)
    options = {"scope": config.scope, "batch_size": config.batch_size, "seed": config.seed}
    numbers, sizes = spread_timesteps(process, config.num_timesteps), fitting_sizes(config, encoder)
    errors = measure_errors(models, *inputs, numbers=numbers, group_sizes=sizes, **options)
    options["timesteps"] = spread_timesteps(process, config.map_timesteps)
    options["group_size"] = min(MAP_GROUP_SIZE, _row(config, encoder))
    options["decode"] = None if encoder.vae is None else encoder.decode
    factors = propagation_factors(process, config.num_inference_steps, size=encoder.shape[1:])
    noisy = process.scheduler.config.num_train_timesteps / 2
    students = []
    for label, model in tqdm(models.items(), desc="Computing maps"):
        propagated = propagate(errors[label], *factors)
        of_student = {kind: samples and samples[f"{kind} {label}"] for kind in KINDS}
        students.append(
            StudentAnalysis(
                label=label,
                parameters=count_parameters(model),
                macs=count_macs(model),
                norms=norms_of(model),
                errors=errors[label],
                carried=propagated,
                advice=advise(model, process.prediction_type, errors[label], propagated, noisy),
                maps=compute_maps(model, *inputs, **options),
                **of_student,
            )
        )
    return tuple(students)


def _row(config: AnalyzeConfig, encoder: Encoder) -> int:
    """Elements that share one linear fit."""
    channels, height, width = encoder.shape
    return height * width * (channels if config.scope == "sample" else 1)


def fitting_sizes(config: AnalyzeConfig, encoder: Encoder) -> tuple[int, ...]:
    """The group sizes that are not larger than a row."""
    return tuple(size for size in config.group_sizes if size <= _row(config, encoder))


def _check_sizes(config: AnalyzeConfig, encoder: Encoder, process: NoiseProcess) -> None:
    steps = process.scheduler.config.num_train_timesteps
    for flag in ("num_timesteps", "map_timesteps"):
        if getattr(config, flag) > steps:
            raise UsageError(
                f"--{flag} is {getattr(config, flag)}, but {config.teacher} has {steps} timesteps"
            )
    row, fitting = _row(config, encoder), fitting_sizes(config, encoder)
    if not fitting:
        raise UsageError(
            f"--group_sizes {config.group_sizes[0]} is larger than a row, which has {row} elements"
        )
    if distributed_state().is_main_process and fitting != config.group_sizes:
        larger = " ".join(str(size) for size in config.group_sizes if size > row)
        print(f"--group_sizes {larger} left out: a row has {row} elements")


def read_images(
    dataset: Dataset, encoder: Encoder, count: int, batch_size: int
) -> tuple[Tensor, dict[str, Tensor]]:
    """Latents (count, channels, height, width) and conditions by name, (count, ...), on the CPU, of
    images drawn from the whole dataset, see `shuffled`."""
    indices = shuffled(len(dataset), count).tolist()
    latents, conditions = [], []
    loader = DataLoader(Subset(dataset, indices), batch_size=batch_size)
    for items in tqdm(loader, desc="Reading images"):
        latents.append(encoder.latents(items).cpu())
        conditions.append(encoder.conditions(items))
    names = conditions[0]
    return torch.cat(latents), {
        name: torch.cat([part[name].cpu() for part in conditions]) for name in names
    }


def _record(
    config: AnalyzeConfig,
    sampler: Sampler,
    network: nn.Module | None,
    teacher: LoadedModel,
    students: dict[str, LoadedModel],
) -> dict:
    """Everything that the samples and their features depend on."""
    settings = asdict(config)
    record = {
        **{name: settings[name] for name in SAMPLED},
        "teacher_sha256": hash_of_weights(teacher.model),
        "student_sha256": [hash_of_weights(student.model) for student in students.values()],
        "resolution": sampler.encoder.resolution,
        "sampler": sampler.record(),
        "feature_network": network
        and {"name": config.feature_network, "sha256": network.weights_sha256},
    }
    return json.loads(json.dumps(record))  # tuples become lists


def _write(config: AnalyzeConfig, record: dict, analysis: Analysis) -> dict:
    folder = Path(config.output_dir)
    files = write_report(analysis, folder)
    results = {
        "liftplace": __version__,
        "torch": torch.__version__,
        "settings": json.loads(json.dumps(asdict(config))),
        **{name: value for name, value in record.items() if name not in SAMPLED},
        "analysis": plain(analysis),
    }
    text = json.dumps(results, indent=1, allow_nan=False)
    # The numbers of a list on one line.
    text = re.sub(r"\[[^\[\]{}\"]*\]", lambda match: " ".join(match[0].split()), text)
    write_text_whole(folder / RESULTS, text + "\n")
    print(text_table(summary(analysis)))
    if analysis.few_images:
        print(analysis.few_images)
    print("\n" + "\n".join(advice_lines(analysis)))
    print(f"\n{files['report']}")
    return results


def plain(value):
    """As JSON has it: tensors are lists of numbers of six digits, what is not finite is null, and
    pictures, which the PNGs have, are left out."""
    if is_dataclass(value):
        names = [field.name for field in fields(value) if field.name not in ("images", "noisy")]
        return {name: plain(getattr(value, name)) for name in names}
    if isinstance(value, Tensor):
        return plain(value.tolist())
    if isinstance(value, (tuple, list)):
        return [plain(each) for each in value]
    if isinstance(value, float):
        return float(f"{value:.6g}") if abs(value) < float("inf") else None
    return value
