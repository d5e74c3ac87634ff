"""`liftplace evaluate`: the scores of a saved model's samples."""

import json
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Subset
from tqdm.auto import tqdm

from liftplace import __version__
from liftplace.data import CachedLatents, Digits, load_dataset
from liftplace.data.encoder import Encoder
from liftplace.errors import UsageError
from liftplace.evaluate.agreement import pair_differences
from liftplace.evaluate.collect import PART, collect
from liftplace.evaluate.config import EvaluateConfig
from liftplace.evaluate.features import cached_features, extract_features, write_whole
from liftplace.evaluate.judge import Judge, Score
from liftplace.evaluate.networks import hash_of_weights, load_network
from liftplace.evaluate.sampler import Sampler
from liftplace.train.learner import NonFiniteError
from liftplace.train.models import LoadedModel, check_pair, load_model

RESULTS = "results.json"
INTERVAL = "percentiles of the deviations of random halves, drawn without replacement"


def evaluate(config: EvaluateConfig) -> dict:
    """Sample, score, write results.json and print its table.

    The scheduler is the model's own, made deterministic; with a teacher, the teacher's, and so are
    the VAE and text encoders, so that both see the same.

    Returns:
        What results.json has.

    Raises:
        UsageError: model, teacher, images, network and folder do not fit.
        NonFiniteError: samples that are not finite.
        OSError: a file could not be written.
    """
    config.check_complete()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    network = load_network(config.feature_network, config.feature_weights).to(device)
    if "is" in config.metrics and not hasattr(network, "logits"):
        raise UsageError(f"--metrics is: {network.name} has no classes; leave it out")
    model, teacher = load_model(config.model), None
    if config.teacher is not None:
        teacher = load_model(config.teacher)
        check_pair(model, teacher)
    source = teacher or model
    sampler = Sampler(source.process(), Encoder(source, config.resolution).to(device))
    dataset = _reference(config, sampler.encoder.resolution)

    drawer = _Drawer(config, sampler, network, model, teacher, device)
    record = _record(config, sampler, network, model, teacher)
    found = collect(Path(config.output_dir), record, config.num_samples, drawer.draw)
    features = found["features"].to(device)
    real, other_real = _real_features(config, dataset, network, features)
    judge = Judge(
        network, real, other_real, config.neighbours, config.interval_draws, config.confidence,
        config.seed,
    )  # fmt: skip
    scores = judge.scores(config.metrics, features)
    if teacher is not None:
        scores += judge.agreement(found)
    results = _results(config, record, dataset, judge, scores)
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
    lines.append(
        f"{count:,} samples in {results['num_inference_steps']} steps against {count:,} real "
        f"images; features of {results['feature_network']['name']}"
    )
    if results["num_components"] is not None:
        lines[-1] += f", {results['num_components']} principal components in the Frechet distance"
    if results["reference"]["num_floor_images"] == 0:
        lines.append(f"no score of real images beside it: that needs {2 * count:,} real images")
    return "\n".join(lines)


class _Drawer:
    """Draws a part of the samples, and keeps of it what is scored."""

    def __init__(
        self, config: EvaluateConfig, sampler: Sampler, network, model: LoadedModel,
        teacher: LoadedModel | None, device: str,
    ) -> None:  # fmt: skip
        self.config, self.sampler, self.network = config, sampler, network
        self.model = model.model.eval().to(device)
        self.teacher = None if teacher is None else teacher.model.eval().to(device)

    def draw(self, seed: int, first: int, count: int) -> dict[str, Tensor]:
        images = self._images(self.model, seed, first, count)
        features = self._features(images)
        if not features.isfinite().all():
            raise NonFiniteError(f"{self.config.model} makes samples with NaN or infinity in them")
        if self.teacher is None:
            return {"features": features}
        theirs = self._images(self.teacher, seed, first, count)
        pairs = pair_differences(images, theirs, features, self._features(theirs))
        return {"features": features} | pairs

    def _images(self, model, seed: int, first: int, count: int) -> Tensor:
        config, encoder = self.config, self.sampler.encoder
        labels = config.class_labels
        if labels is None and encoder.takes_labels:
            labels = range(encoder.family.num_classes(encoder.config))
        return self.sampler.sample(
            model,
            num_samples=count,
            num_inference_steps=config.num_inference_steps,
            seed=seed,
            batch_size=config.batch_size,
            class_labels=_in_turn(labels, first, count),
            prompts=_in_turn(config.prompts, first, count),
            guidance_scale=config.guidance_scale,
            description=None,
        )

    def _features(self, images: Tensor) -> Tensor:
        return extract_features(images, self.network, description=None)


def _in_turn(values, first: int, count: int) -> list | None:
    """The values of samples first ... first + count - 1, where all samples take them in turn."""
    if values is None:
        return None
    return [values[number % len(values)] for number in range(first, first + count)]


def _reference(config: EvaluateConfig, resolution: int):
    dataset = load_dataset(
        config.reference_dir, resolution=resolution, center_crop=config.center_crop
    )
    if isinstance(dataset, CachedLatents):
        raise UsageError(f"--reference_dir {config.reference_dir} holds latents: give the images")
    if len(dataset) < config.num_samples:
        raise UsageError(
            f"--num_samples is {config.num_samples}, but --reference_dir {config.reference_dir} "
            f"has {len(dataset)} images: a score needs as many real ones"
        )
    return dataset


def _real_features(
    config: EvaluateConfig, dataset, network, generated: Tensor
) -> tuple[Tensor, Tensor | None]:
    """Of as many real images as samples, spread over all; and of as many others, if there are."""
    count = config.num_samples
    has_floor = len(dataset) >= 2 * count
    taken = 2 * count if has_floor else count
    indices = (torch.arange(taken) * len(dataset) // taken).tolist()
    loader = DataLoader(Subset(dataset, indices), batch_size=PART)
    parts = [
        cached_features(items["images"], network, description=None)
        for items in tqdm(loader, desc="Features of real images")
    ]
    features = torch.cat(parts).to(generated.device)
    num_features = generated.shape[1]
    if features.shape[1] != num_features:
        raise UsageError(
            f"feature_network {config.feature_network} gives {num_features} features of a sample "
            f"and {features.shape[1]} of an image of --reference_dir {config.reference_dir}, which "
            f"has {dataset.channels} channels: it must take both"
        )
    return (features[::2], features[1::2]) if has_floor else (features, None)


def _record(
    config: EvaluateConfig, sampler: Sampler, network, model: LoadedModel,
    teacher: LoadedModel | None,
) -> dict:  # fmt: skip
    """Everything that the samples and their features depend on."""
    settings = asdict(config)
    names = (
        "model", "teacher", "num_samples", "num_inference_steps", "seed", "class_labels",
        "prompts", "guidance_scale",
    )  # fmt: skip
    scheduler = sampler.process.sampler()
    return _plain(
        {
            **{name: settings[name] for name in names},
            "model_sha256": hash_of_weights(model.model),
            "teacher_sha256": None if teacher is None else hash_of_weights(teacher.model),
            "resolution": sampler.encoder.resolution,
            "sampler": {"class": type(scheduler).__name__, **scheduler.config},
            "feature_network": {"name": config.feature_network, "sha256": network.weights_sha256},
        }
    )


def _results(
    config: EvaluateConfig, record: dict, dataset, judge: Judge, scores: list[Score]
) -> dict:
    side = record["resolution"]
    scaling = "bicubic, antialiased" if isinstance(dataset, Digits) else "Lanczos"
    shape = "the central square" if config.center_crop else "the whole image"
    return {
        "liftplace": __version__,
        **record,
        "reference": {
            "dir": config.reference_dir,
            "identity": dataset.identity(),
            "num_images": len(judge.real),
            "num_floor_images": 0 if judge.other_real is None else len(judge.other_real),
        },
        "resize": {
            "reference": f"{shape} to {side} x {side}, {scaling}",
            "network": judge.network.resize,
        },
        "num_components": judge.num_components if "fd" in config.metrics else None,
        "neighbours": config.neighbours,
        "interval": {
            "level": config.confidence, "draws": config.interval_draws, "method": INTERVAL,
        },
        "scores": [asdict(score) for score in scores],
    }  # fmt: skip


def _plain(record: dict) -> dict:
    """A record as JSON gives it back, without a scheduler's private notes of where it came from."""
    sampler = {name: x for name, x in record["sampler"].items() if not name.startswith("_")}
    return json.loads(json.dumps(record | {"sampler": sampler}, default=str))
