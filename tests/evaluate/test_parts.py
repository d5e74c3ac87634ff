import numpy as np
import pytest
import torch

from liftplace.common.errors import UsageError
from liftplace.evaluate import parts
from liftplace.evaluate.parts import Part, collect, parts_of

RECORD = {"seed": 3}


def numbered(part: Part) -> dict[str, torch.Tensor]:
    return {
        "rows": torch.arange(part.first, part.first + part.count),
        "seed": torch.tensor([part.seed]),
    }


def test_parts_share_all_samples_and_have_seeds_of_their_own():
    made = parts_of(300, 3)
    assert [(part.number, part.first, part.count) for part in made] == [
        (0, 0, 128),
        (1, 128, 128),
        (2, 256, 44),
    ]
    seeds = [int(np.random.SeedSequence([3, number]).generate_state(1)[0]) for number in range(3)]
    assert [part.seed for part in made] == seeds and len(set(seeds)) == 3


def test_parts_are_joined_in_order_and_a_damaged_one_is_made_again(tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "PART_SIZE", 4)
    first = collect(tmp_path, RECORD, 10, numbered)
    assert first["rows"].tolist() == [*range(10)]
    assert first["seed"].tolist() == [part.seed for part in parts_of(10, 3)]
    (tmp_path / "samples" / "00001.safetensors").write_bytes(b"half")
    again = []

    def counted(part):
        again.append(part.number)
        return numbered(part)

    assert collect(tmp_path, RECORD, 10, counted)["rows"].tolist() == [*range(10)]
    assert again == [1]
    with pytest.raises(UsageError, match="holds other samples: seed is 3 there and 4 here"):
        collect(tmp_path, {"seed": 4}, 10, numbered)
