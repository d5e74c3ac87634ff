"""Features of real images in a file, to score samples without the images."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from liftplace.common.errors import UsageError
from liftplace.common.files import write_whole
from liftplace.data.size import Resolution
from liftplace.evaluate.scores import Moments
from liftplace.evaluate.subsets import SHUFFLE_SEED, shuffled, too_few_images

SHUFFLED = "shuffle_seed"  # of a file whose images are in the order of `shuffled`


@dataclass(frozen=True)
class Statistics:
    """Features of real images, as a file has them."""

    real: Tensor | Moments  # (N, features) float32, on the CPU
    other_real: Tensor | None  # as many of other images, for the floor
    about: dict  # JSON values that describe the images


def save_statistics(
    file: str | Path, real: Tensor, other_real: Tensor | None, network: nn.Module, about: dict
) -> None:
    """Write features (N, features) of real images into a safetensors file.

    Args:
        file: written whole or not at all.
        real, other_real, network: of `Evaluator`.
        about: JSON values that describe the images: `resolution`, the side that they were scaled
            to before the network, and anything else.
    """
    tensors = {"real": real.cpu().contiguous()}
    if other_real is not None:
        tensors["other_real"] = other_real.cpu().contiguous()
    settings = about | _of_network(network) | {SHUFFLED: SHUFFLE_SEED}
    write_whole(Path(file), save(tensors, {"liftplace": json.dumps(settings)}))


def load_statistics(
    file: str | Path, network: nn.Module, resolution: Resolution, count: int
) -> Statistics:
    """Read the file of `save_statistics`, or an .npz of mu and sigma as pytorch-fid writes it.

    Args:
        file: ends in .safetensors or .npz.
        network: that the features of the samples come from.
        resolution: of the samples.
        count: of the samples; of more real images the first are taken, which are random ones.

    Raises:
        UsageError: the file cannot be read or holds something else; another network or
            resolution, too few images.
    """
    if str(file).endswith(".npz"):
        return Statistics(_moments(file), None, {"sha256": _hash(file)})
    tensors, about = _read(file)
    expected = _of_network(network) | {"resolution": resolution}
    for name, value in expected.items():
        if about.get(name) != value:
            raise UsageError(
                f"--reference_stats {file} has another {name}: {about.get(name)} there, {value} "
                "here"
            )
    real, other_real = tensors["real"], tensors.get("other_real")
    if len(real) < count:
        raise too_few_images(count, f"--reference_stats {file}", len(real))
    if about.get(SHUFFLED) != SHUFFLE_SEED:
        real, other_real = _split_anew(real, other_real)
    return Statistics(
        real[:count],
        None if other_real is None else other_real[:count],
        about | {"sha256": _hash(file)},
    )


def _split_anew(real: Tensor, other_real: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Of a file of earlier versions, which took images and others in turn: two classes that
    alternate were two sets that are unlike."""
    both = real if other_real is None else torch.cat([real, other_real])
    both = both[shuffled(len(both), len(both))]
    return both[: len(real)], None if other_real is None else both[len(real) :]


def _moments(file: str | Path) -> Moments:
    try:
        with np.load(file, allow_pickle=False) as arrays:
            mean, covariance = (arrays[name].astype(np.float64) for name in ("mu", "sigma"))
    except OSError as error:
        raise _unreadable(file, error.strerror or error) from error
    except (ValueError, KeyError, BadZipFile, EOFError, TypeError) as error:
        raise _unreadable(file, f"it must hold arrays mu and sigma: {error}") from error
    if mean.ndim != 1 or covariance.shape != (len(mean), len(mean)):
        raise _unreadable(
            file,
            "mu and sigma must be (features,) and (features, features), got "
            f"{mean.shape} and {covariance.shape}",
        )
    if not (np.isfinite(mean).all() and np.isfinite(covariance).all()):
        raise _unreadable(file, "mu and sigma must be finite")
    return Moments(torch.from_numpy(mean), torch.from_numpy(covariance))


def _read(file: str | Path) -> tuple[dict[str, Tensor], dict]:
    try:
        with safe_open(file, framework="pt") as opened:
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}
            about = json.loads((opened.metadata() or {})["liftplace"])
    except (OSError, SafetensorError) as error:
        raise _unreadable(file, error) from error
    except (KeyError, ValueError) as error:
        raise _unreadable(file, "--save_reference_stats did not write it") from error
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    real = shapes.get("real", ())
    if len(real) != 2 or shapes.get("other_real", real) != real:
        raise _unreadable(file, f"real and other_real must be (N, features), got {shapes}")
    if not all(tensor.isfinite().all() for tensor in tensors.values()):
        raise _unreadable(file, "features must be finite")
    return tensors, about


def _unreadable(file: str | Path, reason: object) -> UsageError:
    return UsageError(f"--reference_stats {file} cannot be used: {reason}")


def _of_network(network: nn.Module) -> dict:
    return {
        "feature_network": network.name,
        "feature_network_sha256": network.weights_sha256,
        "feature_network_resize": network.resize,
    }


def _hash(file: str | Path) -> str:
    with open(file, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
