"""The demo from top to bottom."""

import shutil
import time
from contextlib import ExitStack
from pathlib import Path

import torch
from torch import nn

from liftplace.analyze.maps import compute_maps, save_maps
from liftplace.common.errors import UsageError
from liftplace.common.files import RESULTS, check_free, new_folder
from liftplace.data import load_dataset
from liftplace.data.encoder import Encoder
from liftplace.demo.figures import save_losses, save_samples
from liftplace.demo.measure import demo_evaluator, measure
from liftplace.demo.methods import LABELS, MAPPED, METHODS, for_cpu, new_student_trainers
from liftplace.demo.results import (
    announcement,
    collect_results,
    diagnosis_line,
    loading_lines,
    table,
    write_json,
)
from liftplace.demo.settings import FAST, FULL, DemoSettings
from liftplace.demo.threads import choose_num_threads
from liftplace.evaluate.sampling import Sampler
from liftplace.evaluate.subsets import spread
from liftplace.models.loading import LoadedModel, load_model, predict
from liftplace.models.saving import save_pipeline
from liftplace.train.loop import TrainingInterrupted, fit
from liftplace.train.run_folder import METRICS, read_metrics
from liftplace.train.trainer import ModelTrainer

TEACHER = Path(__file__).parent / "teacher"


def run(
    output_dir: str | Path = "liftplace-demo",
    *,
    fast: bool = False,
    settings: DemoSettings | None = None,
    cache_dir: str | Path | None = None,
) -> dict:
    """Distils small students of the shipped teacher: one that fails, and what mends it.

    Args:
        output_dir: folder of the results: new or empty. It appears when everything is in it.
        fast: the same with fewer steps and samples.
        settings: instead of those of ``fast`` or of the full demo.
        cache_dir: of the real images' features, see ``liftplace.evaluate.features``.

    Returns:
        The content of results.json.

    Raises:
        UsageError: the output folder is not free, or a package or the teacher is missing.
        KeyboardInterrupt: Ctrl-C; nothing is left behind.
    """
    start = time.perf_counter()
    output_dir = Path(output_dir)
    settings = settings or (FAST if fast else FULL)
    check_free(output_dir)  # before anything takes time
    if not TEACHER.is_dir():
        raise UsageError(
            "the demo's teacher is in liftplace's repository and in no wheel: run the demo in a "
            'clone, after pip install -e ".[demo]"'
        )
    teacher = load_model(TEACHER)
    for_cpu(teacher.model)
    resolution = teacher.model.config.sample_size
    images = load_dataset("digits", resolution=resolution, split="train")
    held_out = load_dataset("digits", resolution=resolution, split="test")
    num_threads = _choose_num_threads(teacher.model, settings)

    with new_folder(output_dir) as folder, ExitStack() as final_weights:
        trainers = new_student_trainers(teacher, settings, str(folder / "run"))
        print(announcement(settings, teacher.model, trainers, len(images), num_threads))
        _train(trainers, teacher, images, settings, folder)
        models = {"teacher": teacher.model} | {
            trainer.name: final_weights.enter_context(trainer.final_weights())
            for trainer in trainers
        }
        evaluator = demo_evaluator(images, held_out, settings.num_samples, cache_dir)
        sampler = Sampler(teacher.process(), Encoder(teacher))
        measured, samples = measure(models, LABELS, sampler, evaluator, settings)
        maps = compute_maps(
            models[MAPPED],
            teacher.model,
            teacher.process(),
            held_out.images(spread(len(held_out), settings.num_map_images)),
            timesteps=settings.map_timesteps,
            group_size=settings.group_size,
            seed=settings.seed,
        )
        curves = read_metrics(folder / METRICS)
        for method in METHODS:
            _save_student(models[method.name], teacher, folder / "students" / method.name)
        save_samples(samples, measured, evaluator.floor, folder / "samples.png", settings)
        save_losses(curves, folder / "losses.png")
        save_maps(maps, folder / "maps.png")
        results = collect_results(
            settings,
            measured,
            evaluator,
            maps,
            curves,
            teacher_file=TEACHER / "unet" / "diffusion_pytorch_model.safetensors",
            num_threads=num_threads,
            seconds=time.perf_counter() - start,
        )
        write_json(results, folder / RESULTS)

    print(table(results))
    print(f"\nIn {output_dir}: {', '.join(sorted(path.name for path in output_dir.iterdir()))}.")
    print(f"The student with {LABELS[MAPPED]} samples a digit with\n")
    print("\n".join(f"    {line}" for line in loading_lines(output_dir, MAPPED)))
    print(f"\nWhat is wrong with the first student, and why:\n\n    {diagnosis_line(output_dir)}")
    return results


def _choose_num_threads(teacher: nn.Module, settings: DemoSettings) -> int:
    """By the teacher's forward pass, the largest part of a step."""
    size, channels = teacher.config.sample_size, teacher.config.in_channels
    batch = torch.zeros(settings.train_batch_size, channels, size, size)
    timesteps = torch.zeros(len(batch), dtype=torch.int64)
    with torch.no_grad():
        return choose_num_threads(lambda: predict(teacher, batch, timesteps))


def _train(
    trainers: list[ModelTrainer], teacher: LoadedModel, images, settings: DemoSettings, folder: Path
) -> None:
    """Trains the students side by side; of the training's files only the metrics are kept."""
    run_folder = folder / "run"
    try:
        fit(
            trainers,
            dataset=images,
            encoder=Encoder(teacher),
            process=teacher.process(),
            config=settings.distill_config(str(run_folder)),
            teacher=teacher.model,
            description=f"Training {len(METHODS)} students",
        )
    except TrainingInterrupted:  # it names a checkpoint that goes with the folder
        raise KeyboardInterrupt("interrupted: the demo left nothing behind") from None
    (run_folder / METRICS).rename(folder / METRICS)
    shutil.rmtree(run_folder)


def _save_student(student: nn.Module, teacher: LoadedModel, folder: Path) -> None:
    """Saves the student, and makes sure that what was saved is the student."""
    student.to(memory_format=torch.contiguous_format)  # as safetensors want it
    save_pipeline(student, teacher.process(), folder)
    saved = load_model(folder).model.state_dict()
    for name, weight in student.state_dict().items():
        if not torch.equal(saved[name], weight):
            raise RuntimeError(f"the student saved in {folder} differs from the one in memory")
