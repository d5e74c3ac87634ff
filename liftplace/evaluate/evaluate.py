"""`liftplace evaluate`: the scores of a saved model's samples."""

import json
from dataclasses import asdict
from pathlib import Path

from torch import Tensor
from torch.utils.data import Dataset

from liftplace import __version__
from liftplace.common.distributed import device_of, distributed_state
from liftplace.common.errors import UsageError
from liftplace.data import GreyImages
from liftplace.data.encoder import Encoder
from liftplace.evaluate.clip import ClipSimilarity
from liftplace.evaluate.collect import collect
from liftplace.evaluate.config import EvaluateConfig
from liftplace.evaluate.draw import Drawer
from liftplace.evaluate.features import write_whole
from liftplace.evaluate.judge import Judge, Score
from liftplace.evaluate.networks import hash_of_weights, load_network
from liftplace.evaluate.reference import open_reference, real_features
from liftplace.evaluate.sampler import Sampler
from liftplace.evaluate.scores import Moments
from liftplace.evaluate.statistics import Statistics, load_statistics, save_statistics
from liftplace.models.loading import DTYPES, LoadedModel, check_pair, load_model

RESULTS = "results.json"
INTERVAL = "percentiles of the deviations of random halves, drawn without replacement"


def evaluate(config: EvaluateConfig) -> dict | None:
    """Sample, score, write results.json and print its table.

    The scheduler is the model's own, made deterministic; with a teacher, the teacher's, and so are
    the VAE and text encoders, so that both see the same. Several processes share the sampling, and
    the main process does the rest.

    Returns:
        What results.json has; None on the other processes.

    Raises:
        UsageError: model, teacher, images, network and folder do not fit.
        NonFiniteError: samples that are not finite.
        OSError: a file could not be written.
    """
    config.check_complete()
    state = distributed_state()
    device = device_of(state)
    network = load_network(config.feature_network, config.feature_weights).to(device)
    if "is" in config.metrics and not hasattr(network, "logits"):
        raise UsageError(f"--metrics is: {network.name} has no classes; leave it out")
    model, teacher = load_model(config.model), None
    if config.teacher is not None:
        teacher = load_model(config.teacher)
        check_pair(model, teacher)
    source = teacher or model
    encoder = Encoder(source, config.resolution).to(device, DTYPES[config.mixed_precision])
    sampler = Sampler(source.process(), encoder)
    clip = ClipSimilarity(config.clip_model).to(device) if "clip" in config.metrics else None
    reference = _reference(config, network, encoder.resolution)

    record = _record(config, sampler, network, model, teacher, clip)
    drawer = Drawer(config, sampler, network, model, teacher, clip, device)
    found = collect(Path(config.output_dir), record, config.num_samples, drawer.draw)
    if not state.is_main_process:
        return None
    if not isinstance(reference, Statistics):
        reference = _statistics(config, reference, network, encoder.resolution)
    judge, scores = _scores(config, network, reference, found, device)
    if config.save_reference_stats is not None:
        save_statistics(
            config.save_reference_stats, reference.real, reference.other_real, network,
            reference.about,
        )  # fmt: skip
    results = _results(config, record, reference, judge, clip, scores)
    write_whole(Path(config.output_dir) / RESULTS, json.dumps(results, indent=2).encode() + b"\n")
    print(table(results))
    return results


def table(results: dict) -> str:
    """The scores, each with its interval and with what real images score."""
    count, level = results["num_samples"], results["interval"]["level"]
    rows = [("", "score", f"{level:.0%} interval", "real images", "unrelated", "better")]
    for row in results["scores"]:
        others = [row["floor"], row["unrelated"]]
        rows.append((
            row["name"], f"{row['value']:.4g}", f"{row['low']:.4g} ... {row['high']:.4g}",
            *("-" if value is None else f"{value:.4g}" for value in others), row["better"],
        ))  # fmt: skip
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(
            f"{cell:<{width}}" if column == 0 else f"{cell:>{width}}"
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    images = results["reference"]["num_images"]
    lines.append(
        f"{count:,} samples in {results['num_inference_steps']} steps against "
        + (results["reference"]["stats"] if images is None else f"{images:,} real images")
        + f"; features of {results['feature_network']['name']}"
    )
    if results["num_components"] is not None:
        lines[-1] += f", {results['num_components']} principal components in the Frechet distance"
    if results["reference"]["num_floor_images"] == 0:
        needed = f"{2 * count:,} real images" + (" in --reference_dir" if images is None else "")
        lines.append(f"no score of real images beside it: that needs {needed}")
    return "\n".join(lines)


def _reference(config: EvaluateConfig, network, resolution: int) -> Statistics | Dataset:
    """What is in the file, or the images; read before anything is spent on samples."""
    if config.reference_stats is not None:
        return load_statistics(config.reference_stats, network, resolution, config.num_samples)
    return open_reference(
        config.reference_dir, resolution, config.num_samples, split=config.split,
        center_crop=config.center_crop,
    )  # fmt: skip


def _statistics(config: EvaluateConfig, dataset: Dataset, network, resolution: int) -> Statistics:
    real, other_real = real_features(
        dataset, network, config.num_samples, "cpu", num_workers=config.dataloader_num_workers
    )
    scaling = "bicubic, antialiased" if isinstance(dataset, GreyImages) else "Lanczos"
    shape = "the central square" if config.center_crop else "the whole image"
    about = {
        "dir": config.reference_dir,
        "split": config.split,
        "identity": dataset.identity(),
        "channels": dataset.channels,
        "resolution": resolution,
        "resize": f"{shape} to {resolution} x {resolution}, {scaling}",
    }
    return Statistics(real, other_real, about)


def _scores(
    config: EvaluateConfig, network, reference: Statistics, found: dict[str, Tensor], device
) -> tuple[Judge, list[Score]]:
    features, real, other_real = found["features"], reference.real, reference.other_real
    width = len(real.mean) if isinstance(real, Moments) else real.shape[1]
    if width != features.shape[1]:
        raise UsageError(
            f"feature_network {config.feature_network} gives {features.shape[1]} features of a "
            f"sample and the reference {_name(config)} has {width}"
            + (f" of an image of {reference.about['channels']} channels"
               if "channels" in reference.about else "")
            + ": they must be as many"
        )  # fmt: skip
    judge = Judge(
        network, real.to(device), None if other_real is None else other_real.to(device),
        config.neighbours, config.interval_draws, config.confidence, config.seed,
    )  # fmt: skip
    scores = judge.scores(config.metrics, features.to(device))
    if config.teacher is not None:
        scores += judge.agreement(found)
    if "clip" in found:
        scores.append(judge.clip(found["clip"]))
    return judge, scores


def _name(config: EvaluateConfig) -> str:
    return config.reference_stats or config.reference_dir


def _record(
    config: EvaluateConfig, sampler: Sampler, network, model: LoadedModel,
    teacher: LoadedModel | None, clip: ClipSimilarity | None,
) -> dict:  # fmt: skip
    """Everything that the samples and their features depend on."""
    settings = asdict(config)
    names = (
        "model", "teacher", "num_samples", "num_inference_steps", "seed", "class_labels",
        "prompts", "guidance_scale", "mixed_precision",
    )  # fmt: skip
    return json.loads(json.dumps(
        {
            **{name: settings[name] for name in names},
            "model_sha256": hash_of_weights(model.model),
            "teacher_sha256": None if teacher is None else hash_of_weights(teacher.model),
            "resolution": sampler.encoder.resolution,
            "sampler": sampler.record(),
            "feature_network": {"name": config.feature_network, "sha256": network.weights_sha256},
            "clip_model": None
            if clip is None
            else {"name": config.clip_model, "sha256": clip.weights_sha256},
        }
    ))  # fmt: skip


def _results(
    config: EvaluateConfig, record: dict, reference: Statistics, judge: Judge,
    clip: ClipSimilarity | None, scores: list[Score],
) -> dict:  # fmt: skip
    only_moments = isinstance(judge.real, Moments)
    return {
        "liftplace": __version__,
        **record,
        "reference": {
            "stats": config.reference_stats,
            **reference.about,
            "num_images": None if only_moments else len(judge.real),
            "num_floor_images": 0 if judge.other_real is None else len(judge.other_real),
        },
        "resize": {
            "reference": reference.about.get("resize", "unknown"),
            "network": judge.network.resize,
            "clip_model": None if clip is None else clip.resize,
        },
        "num_components": judge.num_components(config.num_samples)
        if "fd" in config.metrics else None,
        "neighbours": config.neighbours,
        "interval": {
            "level": config.confidence, "draws": config.interval_draws, "method": INTERVAL,
        },
        "scores": [asdict(score) for score in scores],
    }  # fmt: skip
