"""Folders of models, here or from the Hugging Face Hub."""

import json
from collections import defaultdict
from collections.abc import Collection, Iterable
from pathlib import Path

from huggingface_hub import HfApi, hf_hub_download, snapshot_download
from huggingface_hub.errors import HfHubHTTPError

from liftplace.common.errors import UsageError
from liftplace.common.places import check_model
from liftplace.models.weights import PLAIN, variant_of, variant_to_read, variants_in

INDEX = "model_index.json"
COMPONENTS = ("unet", "transformer")  # what a pipeline calls the model that denoises
WITHOUT_INDEX = (*COMPONENTS, "scheduler", "vae", "vqvae")  # parts where no index names them
SAFETY_CHECKER = "safety_checker"
SUFFIXES = (".json", ".txt", ".model")  # of what is read beside weights; tokenizers have all


def local_folder(
    name_or_path: str | Path, revision: str | None = None, variant: str | None = None
) -> Path:
    """The folder of this name. If there is none here it is fetched from the Hub, without the
    weights that are not read: those of other variants, and single files of other programs.

    Args:
        name_or_path: of a diffusers model or pipeline.
        revision: branch, tag or commit on the Hub.
        variant: of the weights, such as fp16.

    Raises:
        UsageError: no such folder, and nothing of this name on the Hub.
    """
    path = Path(name_or_path)
    if path.is_dir():
        return path
    name = str(name_or_path)
    check_model(name)
    try:
        return Path(_fetch(name, revision, variant))
    except (OSError, ValueError) as error:  # the Hub's own errors are OSErrors
        if isinstance(error, UsageError):
            raise
        of = "" if revision is None else f" of revision {revision}"
        raise UsageError(
            f"no folder {name}, and no such model{of} was loaded from the Hugging Face Hub: "
            f"{' '.join(str(error).split())}"
        ) from error


def _fetch(name: str, revision: str | None, variant: str | None) -> str:
    try:
        found = HfApi().model_info(name, revision=revision)
    except HfHubHTTPError:  # an answer
        raise
    except Exception:  # no connection, in the class of whichever library the Hub is asked with
        return snapshot_download(name, revision=revision, local_files_only=True)
    files = [sibling.rfilename for sibling in found.siblings]
    parts = WITHOUT_INDEX
    if INDEX in files:
        index = hf_hub_download(name, INDEX, revision=revision)
        parts = pipeline_parts(json.loads(Path(index).read_text(encoding="utf-8")))
    wanted = files_to_read(files, parts, variant, name)
    return snapshot_download(name, revision=revision, allow_patterns=wanted)


def commit_of(folder: str | Path | None) -> str | None:
    """The commit that a folder was fetched at; None for one that is not of the Hub's cache."""
    folder = Path(folder or "")
    return folder.name if folder.parent.name == "snapshots" else None


def pipeline_parts(index: dict) -> list[str]:
    """The parts that a model_index.json names and says to be there."""
    return [name for name, value in index.items() if isinstance(value, list) and value[0]]


def files_to_read(
    files: Iterable[str], parts: Collection[str], variant: str | None, where: object
) -> list[str]:
    """Of the files of a repository, those that a pipeline of these parts is read from.

    Raises:
        UsageError: weights of several variants, of which none is asked for; or none of the variant.
    """
    by_folder = defaultdict(list)
    for file in files:
        folder, _, name = file.rpartition("/")
        if not folder or folder in parts:
            by_folder[folder].append(name)
    if any(name in by_folder for name in COMPONENTS):  # else the model is in the root itself
        by_folder[""] = [name for name in by_folder[""] if variant_of(name) is None]
    wanted = []
    for folder, names in by_folder.items():
        if folder == SAFETY_CHECKER and not variants_in(names):
            continue  # of old repositories, in files that have to be unpickled
        taken = variant_to_read(names, variant, f"{where}/{folder}") or PLAIN
        for name in names:
            found = variant_of(name)
            if found == taken or found is None and name.endswith(SUFFIXES):
                wanted.append(f"{folder}/{name}" if folder else name)
    return wanted
