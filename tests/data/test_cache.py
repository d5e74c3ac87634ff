import json
import pickle
from types import SimpleNamespace

import pytest
import torch
from torch.utils.data import DataLoader

from liftplace.common.errors import UsageError
from liftplace.data import CachedLatents, load_dataset
from liftplace.data.cache import INDEX, CacheWriter

FINGERPRINT = {"vae": "of the VAE", "text": "of the text encoders"}


def record(**changes):
    standard = {
        "fingerprint": FINGERPRINT,
        "resolution": 16,
        "latent_shape": [4, 2, 2],
        "images": 5,
        "classes": ["cat", "dog"],
        "resize_mode": "crop",
    }
    return standard | changes


def rows(numbers):
    """A shard with these images, whose latents are all their number."""
    numbers = torch.tensor(numbers)
    mean = numbers.float().view(-1, 1, 1, 1).expand(-1, 4, 2, 2)
    text = torch.stack([numbers.float(), -numbers.float()], dim=1)
    return {
        "latent_mean": mean,
        "latent_std": mean / 10,
        "encoder_hidden_states": text[:, None],
        "class_labels": numbers % 2,
    }


def write(folder, *shards, **changes):
    writer = CacheWriter(folder, record(**changes), teacher="the teacher")
    writer.write_null_text({"encoder_hidden_states": torch.zeros(1, 1, 2)})
    for numbers in shards:
        writer.write_shard(rows(numbers))
    return writer


def encoder(**changes):
    """What a cache asks of an encoder."""
    return SimpleNamespace(
        **{"fingerprint": FINGERPRINT, "resolution": 16, "folder": "a pipeline"} | changes
    )


def test_items_are_what_was_written(tmp_path):
    write(tmp_path, [0, 1], [2, 3], [4])
    dataset = load_dataset(tmp_path, resolution=16)
    assert isinstance(dataset, CachedLatents) and len(dataset) == 5
    assert (dataset.channels, dataset.classes, dataset.has_captions) == (4, ("cat", "dog"), True)
    assert torch.equal(dataset.null_text["encoder_hidden_states"], torch.zeros(1, 1, 2))
    expected = rows(list(range(5)))
    batch = next(iter(DataLoader(dataset, batch_size=5)))
    assert batch.keys() == expected.keys()
    for name, value in expected.items():
        assert batch[name].dtype == value.dtype and torch.equal(batch[name], value), name
    assert torch.equal(dataset[-1]["latent_mean"], expected["latent_mean"][4])
    with pytest.raises(IndexError):
        dataset[5]


def test_worker_processes_read_it(tmp_path):
    write(tmp_path, [0, 1], [2, 3], [4])
    dataset = CachedLatents(tmp_path)
    assert dataset[3]["class_labels"] == 1  # opens a file, which a copy opens for itself
    copy = pickle.loads(pickle.dumps(dataset))
    assert copy[3]["class_labels"] == 1
    loader = DataLoader(dataset, batch_size=1, num_workers=2)
    assert [batch["latent_mean"].mean().item() for batch in loader] == [0, 1, 2, 3, 4]


def test_writer_goes_on_behind_the_last_whole_shard(tmp_path):
    write(tmp_path, [0, 1])
    (tmp_path / ".shard-00001.safetensors.partial").write_bytes(b"half")
    (tmp_path / "shard-00001.safetensors").write_bytes(b"whole, but not yet in the index")
    with pytest.raises(UsageError, match="is unfinished, 2 of 5 images: run the same"):
        CachedLatents(tmp_path)
    writer = write(tmp_path)
    assert writer.done == 2
    writer.write_shard(rows([2, 3, 4]))
    assert [item["latent_mean"].mean().item() for item in CachedLatents(tmp_path)] == [*range(5)]
    assert not list(tmp_path.glob(".*.partial"))


def test_writer_goes_on_from_its_first_file(tmp_path):
    (tmp_path / f".{INDEX}.partial").write_text("{")
    CacheWriter(tmp_path, record(), teacher="the teacher")
    (tmp_path / "null_text.safetensors").write_bytes(b"not yet in the index")
    write(tmp_path, [0, 1], [2, 3, 4])
    assert len(CachedLatents(tmp_path)) == 5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"resolution": 32}, "holds another cache: its resolution is 16, not 32: name a new"),
        ({"images": 6}, "its images is 5, not 6"),
        ({"fingerprint": {"vae": "other", "text": None}}, "its fingerprint is"),
    ],
)
def test_writer_refuses_another_cache(tmp_path, changes, message):
    write(tmp_path, [0, 1])
    with pytest.raises(UsageError, match=message):
        CacheWriter(tmp_path, record(**changes), teacher="the teacher")


def test_writer_refuses_a_folder_of_something_else(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="is not empty and no cache: name a new folder"):
        CacheWriter(tmp_path, record(), teacher="the teacher")
    with pytest.raises(UsageError, match="is not empty and no cache"):
        CacheWriter(tmp_path / "notes.txt", record(), teacher="the teacher")


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def rewrite_index(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


DAMAGE = {
    "changed": (lambda f: flip_a_bit(f / "shard-00001.safetensors"), r"shard-00001.* is not as it"),
    "missing": (lambda f: (f / "shard-00000.safetensors").unlink(), "shard-00000.* is missing"),
    "null text": (lambda f: flip_a_bit(f / "null_text.safetensors"), "null_text.* is not as it"),
    "index": (lambda f: (f / INDEX).write_text("{"), "cannot read .*liftplace_cache"),
    "version": (lambda f: rewrite_index(f / INDEX, format=2), "another version of liftplace"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_found_on_opening(tmp_path, damage):
    do, message = DAMAGE[damage]
    write(tmp_path, [0, 1, 2], [3, 4])
    do(tmp_path)
    with pytest.raises(UsageError, match=f"{message}.*make it again with liftplace encode"):
        CachedLatents(tmp_path)


BY_OTHERS = {
    "vae": (
        {"fingerprint": {"vae": "other", "text": FINGERPRINT["text"]}},
        "was made by the teacher, with another VAE than a pipeline has: make it again",
    ),
    "text": (
        {"fingerprint": {"vae": FINGERPRINT["vae"], "text": "other"}},
        "with other text encoders than a pipeline has: make it again",
    ),
    "pixels": ({"fingerprint": {"vae": None, "text": None}}, "holds latents, but a pipeline takes"),
    "resolution": ({"resolution": 32}, "was made at --resolution 16, not 32: make it again"),
}


@pytest.mark.parametrize("case", BY_OTHERS)
def test_cache_made_by_others_is_refused(tmp_path, case):
    changes, message = BY_OTHERS[case]
    write(tmp_path, [0, 1, 2, 3, 4])
    dataset = CachedLatents(tmp_path)
    dataset.check(encoder())
    with pytest.raises(UsageError, match=message):
        dataset.check(encoder(**changes))


def test_model_without_captions_takes_a_cache_with_some(tmp_path):
    write(tmp_path, [0, 1, 2, 3, 4])
    CachedLatents(tmp_path).check(encoder(fingerprint={"vae": FINGERPRINT["vae"], "text": None}))
