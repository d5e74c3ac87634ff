"""`liftplace evaluate`: the scores of a saved model's samples."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from liftplace import __version__
from liftplace.common.distributed import device_of, distributed_state
from liftplace.common.errors import NonFiniteError, UsageError
from liftplace.common.files import RESULTS, write_text_whole
from liftplace.common.text_table import text_table
from liftplace.data import GreyImages, refuse_broken
from liftplace.data.encoder import Encoder
from liftplace.data.size import Resolution, height_width, image_size
from liftplace.evaluate.agreement import pair_differences
from liftplace.evaluate.clip import ClipSimilarity
from liftplace.evaluate.conditions import (
    DrawnConditions,
    draw_conditions,
    kept_conditions,
    open_with_conditions,
)
from liftplace.evaluate.config import EvaluateConfig
from liftplace.evaluate.evaluator import Evaluator, Score, is_fid, num_features
from liftplace.evaluate.features import extract_features, real_features
from liftplace.evaluate.networks import hash_of_weights, load_network
from liftplace.evaluate.parts import Part, collect, sample_part
from liftplace.evaluate.sampling import Sampler, default_batch_size, in_turn, sampling_options
from liftplace.evaluate.scores import Moments, few_images_note
from liftplace.evaluate.statistics import Statistics, load_statistics, save_statistics
from liftplace.models.loading import (
    DTYPES,
    LoadedModel,
    check_pair,
    load_model,
    set_precision,
)

INTERVAL = "percentiles of the deviations of random halves, drawn without replacement"
SAMPLED = (  # settings that the samples depend on
    "model",
    "teacher",
    "num_samples",
    "num_inference_steps",
    "seed",
    "class_labels",
    "prompts",
    "guidance_scale",
    "mixed_precision",
)


def evaluate(config: EvaluateConfig) -> dict | None:
    """Sample, score, write results.json and print its table.

    The scheduler is the model's own, made deterministic. With a teacher, scheduler, VAE and text
    encoders are the teacher's, so that both models are sampled alike. Several processes share the
    sampling, and the main process does the rest.

    Returns:
        The content of results.json; None on the other processes.

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
    encoder = Encoder(source, image_size(config)).to(device, DTYPES[config.mixed_precision])
    sampler = Sampler(source.process(), encoder)
    clip = ClipSimilarity(config.clip_model).to(device) if "clip" in config.metrics else None
    reference = _reference(config, network, encoder)
    drawn = _draw(config, encoder, reference)
    conditioned = drawn.given_to(config)
    if clip is not None and not conditioned.prompts:
        raise UsageError("--metrics clip compares samples with --prompts: give them")
    if state.is_main_process:
        _announce(config, network, reference, drawn)

    record = _record(config, sampler, network, model, teacher, clip) | drawn.record()
    for loaded in (model, teacher):
        if loaded is not None:
            set_precision(loaded.model, device, config.mixed_precision)
    sample = PartSampler(
        conditioned, sampler, network, model.model, teacher and teacher.model, clip
    )
    sampled = collect(Path(config.output_dir), record, config.num_samples, sample)
    if not state.is_main_process:
        return None
    if not isinstance(reference, Statistics):
        reference = _statistics(config, reference, network, encoder.resolution)
        reference.about["conditions"] = drawn.of_statistics()
    evaluator, scores = _scores(config, network, reference, sampled, device)
    if config.save_reference_stats is not None:
        real, other_real = reference.real, reference.other_real
        save_statistics(config.save_reference_stats, real, other_real, network, reference.about)
    results = _results(config, record, reference, evaluator, clip, scores)
    write_text_whole(Path(config.output_dir) / RESULTS, json.dumps(results, indent=2) + "\n")
    print(table(results))
    return results


@dataclass(frozen=True)
class PartSampler:
    """Samples a part, and computes from its images what the scores need.

    Args:
        config: of the samples.
        sampler, network, model: all on one device.
        teacher: samples from the same noise; None for none.
        clip: compares samples with their prompts; None for none.
    """

    config: EvaluateConfig
    sampler: Sampler
    network: nn.Module
    model: nn.Module
    teacher: nn.Module | None
    clip: ClipSimilarity | None

    def __call__(self, part: Part) -> dict[str, Tensor]:
        """``features``, and the values of agreement and clip: (count, ...) each."""
        options = sampling_options(self.config)
        images, features = sample_part(self.sampler, self.model, self.network, part, **options)
        if not features.isfinite().all():
            raise NonFiniteError(f"{self.config.model} makes samples with NaN or infinity in them")
        values = {"features": features}
        if self.clip is not None:
            values["clip"] = self._similarities(images, part)
        if self.teacher is not None:
            teachers = sample_part(self.sampler, self.teacher, self.network, part, **options)
            values |= pair_differences(images, teachers[0], features, teachers[1])
        return values

    def _similarities(self, images: Tensor, part: Part) -> Tensor:
        prompts = in_turn(self.config.prompts, range(part.first, part.first + part.count))
        device = next(self.clip.parameters()).device
        size = self.config.batch_size or default_batch_size(images.shape[-1])
        batches = [
            self.clip(images[start : start + size].to(device), prompts[start : start + size])
            for start in range(0, len(images), size)
        ]
        return torch.cat(batches).cpu()


def table(results: dict) -> str:
    """The scores, each with its interval and with the score of real images."""
    count, level = results["num_samples"], results["interval"]["level"]
    rows = [("", "score", f"{level:.0%} interval", "real images", "unrelated", "better")]
    for row in results["scores"]:
        interval = f"{row['low']:.4g} ... {row['high']:.4g}"
        others = (_number(row[name]) for name in ("floor", "unrelated"))
        rows.append((row["name"], _number(row["value"]), interval, *others, row["better"]))
    images = results["reference"]["num_images"]
    note = (
        f"{count:,} samples in {results['num_inference_steps']} steps against "
        + (results["reference"]["stats"] if images is None else f"{images:,} real images")
        + f"; features of {results['feature_network']['name']}"
    )
    if results["num_components"] is not None:
        note += f", {results['num_components']} principal components in the Frechet distance"
    lines = [text_table(rows), note]
    if results["few_images"] is not None:
        lines.append(results["few_images"])
    if results["reference"]["num_floor_images"] == 0:
        needed = f"{2 * count:,} real images" + (" in --reference_dir" if images is None else "")
        lines.append(f"no score of real images beside it: that needs {needed}")
    return "\n".join(lines)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _reference(config: EvaluateConfig, network, encoder: Encoder) -> Statistics | Dataset:
    """The real images or their features; opened before time is spent on samples."""
    count = config.num_samples
    if config.reference_stats is not None:
        return load_statistics(config.reference_stats, network, encoder.resolution, count)
    dataset = open_with_conditions(
        config.reference_dir,
        encoder,
        count,
        prompts=config.prompts,
        class_labels=config.class_labels,
        class_map=config.class_map,
        split=config.split,
        resize_mode=config.resize_mode or "crop",
        fewest=config.fewest_samples,
    )
    refuse_broken(dataset)
    return dataset


def _draw(
    config: EvaluateConfig, encoder: Encoder, reference: Statistics | Dataset
) -> DrawnConditions:
    given = {"prompts": config.prompts, "class_labels": config.class_labels}
    if not isinstance(reference, Statistics):
        return draw_conditions(reference, encoder, config.num_samples, **given)
    kept = reference.about.get("conditions", {})
    return kept_conditions(kept, encoder, config.num_samples, config.reference_stats, **given)


def _announce(
    config: EvaluateConfig, network, reference: Statistics | Dataset, drawn: DrawnConditions
) -> None:
    """What a user may not expect of the samples and scores, before time is spent on them."""
    lines = [drawn.line()]
    if "fd" in config.metrics:
        if isinstance(reference, Statistics):
            width = num_features(reference.real)
        else:
            width = extract_features(reference[0]["images"][None], network, description=None).shape[
                1
            ]
        lines.append(few_images_note(config.num_samples, width, all_features=is_fid(network)))
    print("\n".join(filter(None, lines)), end="\n" if any(lines) else "")


def _statistics(
    config: EvaluateConfig, dataset: Dataset, network, resolution: Resolution
) -> Statistics:
    real, other_real = real_features(
        dataset, network, config.num_samples, "cpu", num_workers=config.dataloader_num_workers
    )
    scaling = "bicubic, antialiased" if isinstance(dataset, GreyImages) else "Lanczos"
    height, width = height_width(resolution)
    shape = "the central square" if height == width else "the middle"
    shape = "the whole image" if config.resize_mode == "squash" else shape
    about = {
        "dir": config.reference_dir,
        "split": config.split,
        "identity": dataset.identity(),
        "channels": dataset.channels,
        "resolution": resolution,
        "resize": f"{shape} to {height} x {width}, {scaling}",
    }
    return Statistics(real, other_real, about)


def _scores(
    config: EvaluateConfig, network, reference: Statistics, sampled: dict[str, Tensor], device
) -> tuple[Evaluator, list[Score]]:
    features, real, other_real = sampled["features"], reference.real, reference.other_real
    width = num_features(real)
    if width != features.shape[1]:
        channels = reference.about.get("channels")
        of_channels = "" if channels is None else f" of an image of {channels} channels"
        raise UsageError(
            f"feature_network {config.feature_network} gives {features.shape[1]} features of a "
            f"sample and the reference {config.reference_stats or config.reference_dir} has "
            f"{width}{of_channels}: they must be as many"
        )
    evaluator = Evaluator(
        network,
        real.to(device),
        None if other_real is None else other_real.to(device),
        neighbours=config.neighbours,
        draws=config.interval_draws,
        level=config.confidence,
        seed=config.seed,
    )
    scores = evaluator.scores(config.metrics, features.to(device))
    if config.teacher is not None:
        scores += evaluator.agreement(sampled)
    if "clip" in sampled:
        scores.append(evaluator.clip(sampled["clip"]))
    return evaluator, scores


def _record(
    config: EvaluateConfig,
    sampler: Sampler,
    network: nn.Module,
    model: LoadedModel,
    teacher: LoadedModel | None,
    clip: ClipSimilarity | None,
) -> dict:
    """Everything that the samples and their features depend on."""
    settings = asdict(config)
    record = {name: settings[name] for name in SAMPLED}
    record |= {
        "model_sha256": hash_of_weights(model.model),
        "teacher_sha256": None if teacher is None else hash_of_weights(teacher.model),
        "resolution": sampler.encoder.resolution,
        "sampler": sampler.record(),
        "feature_network": {"name": config.feature_network, "sha256": network.weights_sha256},
        "clip_model": clip and {"name": config.clip_model, "sha256": clip.weights_sha256},
    }
    return json.loads(json.dumps(record))  # tuples become lists


def _results(
    config: EvaluateConfig,
    record: dict,
    reference: Statistics,
    evaluator: Evaluator,
    clip: ClipSimilarity | None,
    scores: list[Score],
) -> dict:
    real, other_real = evaluator.real, evaluator.other_real
    has_fd = "fd" in config.metrics
    level, draws = config.confidence, config.interval_draws
    return {
        "liftplace": __version__,
        **record,
        "reference": {
            "stats": config.reference_stats,
            **{name: each for name, each in reference.about.items() if name != "conditions"},
            "num_images": None if isinstance(real, Moments) else len(real),
            "num_floor_images": 0 if other_real is None else len(other_real),
        },
        "resize": {
            "reference": reference.about.get("resize", "unknown"),
            "network": evaluator.network.resize,
            "clip_model": clip and clip.resize,
        },
        "num_components": evaluator.num_components(config.num_samples) if has_fd else None,
        "few_images": evaluator.few_images_note(config.num_samples) if has_fd else None,
        "neighbours": config.neighbours,
        "interval": {"level": level, "draws": draws, "method": INTERVAL},
        "scores": [asdict(score) for score in scores],
    }
