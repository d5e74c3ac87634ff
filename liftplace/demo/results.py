"""The demo's results as JSON and as text."""

import hashlib
import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

from torch import nn

from liftplace import __version__
from liftplace.analyze.maps import Maps
from liftplace.common.text_table import text_table
from liftplace.demo.measure import Measured
from liftplace.demo.methods import LABELS, METHODS
from liftplace.demo.settings import DemoSettings
from liftplace.evaluate.evaluator import Evaluator
from liftplace.models.costs import count_parameters
from liftplace.models.norms import norms_of
from liftplace.train.trainer import ModelTrainer

PACKAGES = ("torch", "diffusers", "accelerate", "numpy", "mlxtend", "efficientnet-lite-pytorch")
COLUMNS = ["", "parameters", "share", "MACs", "FD-Lite0", "KID", "pixel error", "mean", "sample s"]


def announcement(
    settings: DemoSettings,
    teacher: nn.Module,
    trainers: Sequence[ModelTrainer],
    num_images: int,
    num_threads: int,
) -> str:
    """What the demo is about to do."""
    students = "\n".join(
        f"  {LABELS[each.name]}: {count_parameters(each.model):,} parameters, "
        f"{norms_of(each.model).channels} or more channels a norm group"
        for each in trainers
    )
    return (
        f"Teacher: {count_parameters(teacher):,} parameters, {num_images:,} MNIST digits at "
        f"{teacher.config.sample_size} x {teacher.config.sample_size}, predicts noise. "
        f"Threads: {num_threads}.\n"
        f"Students, pruned from it to {settings.width:.0%} of its channels:\n{students}\n"
        f"{settings.max_train_steps} steps of {settings.train_batch_size}, AdamW, learning rate "
        f"{settings.learning_rate:g} (cosine), EMA, seed {settings.seed}, "
        "loss = task + distillation."
    )


def collect_results(
    settings: DemoSettings,
    measured: dict[str, Measured],
    evaluator: Evaluator,
    maps: Maps,
    curves: list[dict],
    *,
    teacher_file: Path,
    num_threads: int,
    seconds: float,
) -> dict:
    """The content of results.json."""
    teacher = measured["teacher"]
    models = {}
    for name, each in measured.items():
        models[name] = {
            "label": LABELS[name],
            "parameters": each.parameters,
            "share_of_teacher": each.parameters / teacher.parameters,
            "macs": each.macs,
            **_scores(each.scores),
            "pixel_error": each.agreement.pixel_error,
            "mean": each.mean,
            "spread_of_means": each.spread_of_means,
            "sampling_seconds": each.sampling_seconds,
            "last_step": _terms(curves[-1], name),
        }
    return {
        "models": models,
        "real_real_floor": _scores(evaluator.floor),
        "pixel_error_of_unrelated_samples": teacher.agreement.unrelated,
        "num_images": evaluator.floor.num_images,
        "num_components": evaluator.floor.num_components,
        "share_explained_by_linear_fit": dict(
            zip(maps.timesteps, maps.explained.tolist(), strict=True)
        ),
        "seconds": seconds,
        "settings": asdict(settings),
        "optimiser": _optimiser(settings),
        "num_threads": num_threads,
        "machine": {"cpus": os.cpu_count(), "architecture": platform.machine()},
        "versions": {"liftplace": __version__, "python": platform.python_version()}
        | {package: version(package) for package in PACKAGES},
        "sha256": {
            "teacher": hashlib.sha256(teacher_file.read_bytes()).hexdigest(),
            "feature_network": evaluator.network.weights_sha256,
        },
    }


def table(results: dict) -> str:
    """The results as lines for a terminal, with what the columns mean."""
    rows = [COLUMNS, ["real / real", "", "", "", *_cells(results["real_real_floor"]), "", "", ""]]
    for each in results["models"].values():
        row = [
            each["label"],
            f"{each['parameters']:,}",
            f"{100 * each['share_of_teacher']:.1f} %",
            f"{each['macs'] / 1e6:.2f} M",
            *_cells(each),
            f"{each['pixel_error']:.3f}",
            f"{each['mean']:.2f} ± {each['spread_of_means']:.2f}",
            f"{each['sampling_seconds']:.1f}",
        ]
        rows.append(row)
    return "\n".join(["", text_table(rows, ruled=True), "", *_notes(results)])


def _notes(results: dict) -> list[str]:
    count, components = results["num_images"], results["num_components"]
    unrelated = results["pixel_error_of_unrelated_samples"]
    return [
        f"FD-Lite0 ({components} principal components) and KID, on features of EfficientNet-Lite0:",
        f"{count} samples against {count} held-out images, one seed; lower is better.",
        f"real / real: {count} training images against the same held-out images.",
        "pixel error: root-mean-square difference from the teacher's samples from the same noise,",
        f"pixels in [-1, 1]; between teacher's samples from different noise {unrelated:.3f}.",
        "mean ± spread of the samples' mean brightness, which norms of one channel a group lose.",
        "MACs: a forward pass of one image.",
        f"sample s: for {count} images in {results['settings']['num_inference_steps']} steps. "
        f"The whole demo: {results['seconds']:.0f} s, torch threads: {results['num_threads']}.",
    ]


def loading_lines(output_dir: Path, name: str) -> tuple[str, str]:
    """Two lines of Python that load a saved student and sample one image."""
    folder = str(output_dir / "students" / name)
    return (
        "from diffusers import DDPMPipeline",
        f"image = DDPMPipeline.from_pretrained({folder!r})(num_inference_steps=50).images[0]",
    )


def diagnosis_line(output_dir: Path) -> str:
    """The command that says why the failing student fails."""
    teacher = Path(__file__).parent / "teacher"
    student = output_dir / "students" / METHODS[0].name
    return f"liftplace analyze --teacher {teacher} --student {student} --data digits"


def write_json(results: dict, path: Path) -> None:
    path.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


def _scores(scores) -> dict:
    return {"fd_lite0": scores.fd_lite0, "kid": scores.kid}


def _cells(scores: dict) -> tuple[str, str]:
    return f"{scores['fd_lite0']:.1f}", f"{scores['kid']:.3f}"


def _terms(line: dict, name: str) -> dict:
    """One model's part of a line of metrics.jsonl; the teacher has none."""
    prefix = f"{name}/"
    return {key.removeprefix(prefix): line[key] for key in line if key.startswith(prefix)}


def _optimiser(settings: DemoSettings) -> dict:
    """The trainer's settings behind every student, those with their default included."""
    config = asdict(settings.distill_config("run"))
    kept = ("learning_rate", "lr_", "adam_", "max_grad_norm", "use_ema", "ema_", "train_batch_size")
    return {"name": "AdamW"} | {key: config[key] for key in config if key.startswith(kept)}
