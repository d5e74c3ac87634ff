from dataclasses import replace

import pytest

from benchmarks.study.grid import RATES, SEARCH_SEED, Cell, Study, rates_to_search
from benchmarks.study.studies import STUDIES
from liftplace.common.errors import UsageError
from liftplace.train import DistillConfig

STUDY = Study(
    question="?",
    base={"train_batch_size": 4},
    teachers={"T": {"pretrained_teacher_name_or_path": "t", "teacher_sha256": "0"}},
    students={"small": {"student_block_out_channels": (4, 4)}},
    methods={"no KD": {"loss": "none"}, "output KD": {"loss": "mse"}},
)


def row(cell: Cell, fd: float, status: str = "ok") -> dict[str, str]:
    named = {"study": cell.study, "phase": cell.phase, "hash": cell.hash, "commit": "abc"}
    numbers = {"learning_rate": cell.rate, "seed": cell.seed, "fd": fd, "step": cell.stages[-1]}
    return cell.labels | named | {key: str(x) for key, x in numbers.items()} | {"status": status}


def play(study: Study, seeds, distance) -> dict[str, tuple[Cell, dict]]:
    """Every cell that is asked for until there are none, with a row by `distance`."""
    found, known = {}, {}
    for _ in range(20):
        pending = study.pending("s", known, seeds)
        if not pending:
            return found
        for cell in pending:
            assert cell.hash not in found
            known[cell.hash] = row(cell, distance(cell))
            found[cell.hash] = (cell, known[cell.hash])
    raise AssertionError("no end")


def test_each_combination_is_confirmed_at_its_own_best_rate():
    best = {"none": 3e-3, "mse": 1e-3}
    found = play(STUDY, range(3), lambda cell: abs(cell.rate - best[cell.settings["loss"]]))
    confirmed = [cell for cell, _ in found.values() if cell.phase == "confirm"]
    assert {(cell.settings["loss"], cell.rate, cell.seed) for cell in confirmed} == {
        (loss, best[loss], seed) for loss in best for seed in range(3)
    }
    searched = [cell for cell, _ in found.values() if cell.phase == "search"]
    assert {cell.seed for cell in searched} == {SEARCH_SEED}
    # 1e-3 is the first of the study's rates, so one below it was tried.
    for loss, tried in {"mse": {3e-4, 1e-3, 3e-3, 1e-2}, "none": {1e-3, 3e-3, 1e-2}}.items():
        assert {cell.rate for cell in searched if cell.settings["loss"] == loss} == tried


def test_a_cell_is_asked_for_until_its_last_stage_is_there():
    study = replace(STUDY, search=False, stages=(2, 4))
    first, *others = study.pending("s", {}, [0])
    under_way = {first.hash: row(first, 1.0) | {"step": "2"}}
    assert study.pending("s", under_way, [0]) == [first, *others]
    assert study.pending("s", {first.hash: row(first, 1.0)}, [0]) == others


def test_a_diverged_cell_is_never_the_best():
    known = {}
    for cell in STUDY.pending("s", {}, [0]):
        status = "diverged" if cell.rate == 3e-3 else "ok"
        known[cell.hash] = row(cell, 1.0 if cell.rate == 3e-3 else 5 + cell.rate, status)
    rates = {cell.rate for cell in STUDY.pending("s", known, [0])}
    assert 3e-3 not in rates


@pytest.mark.parametrize(
    ("start", "best", "tried"),
    [
        ((1e-3, 3e-3), 1e-3, (3e-4, 1e-3, 3e-3)),
        ((1e-3, 3e-3), 1e-2, (1e-3, 3e-3, 1e-2, 3e-2)),
        ((1e-3, 3e-3, 1e-2), 3e-3, (1e-3, 3e-3, 1e-2)),
        ((1e-4, 3e-4), RATES[0], (1e-4, 3e-4)),
        ((1e-1, 3e-1), RATES[-1], (1e-1, 3e-1)),
    ],
)
def test_search_goes_on_beyond_the_edge_that_is_best(start, best, tried):
    distances = dict.fromkeys(RATES)
    while (rates := rates_to_search(start, distances)) and None in map(distances.get, rates):
        distances |= {rate: abs(RATES.index(rate) - RATES.index(best)) for rate in rates}
    assert rates == tried


def test_a_sweep_takes_all_rates_and_seeds():
    study = replace(STUDY, search=False)
    cells = study.pending("s", {}, range(2))
    assert len(cells) == 2 * 3 * 2
    assert {cell.phase for cell in cells} == {"confirm"}


def test_hash_is_of_what_decides_the_result():
    cell = STUDY.pending("s", {}, [0])[0]
    renamed = Cell("other", "confirm", {}, dict(reversed(cell.settings.items())), cell.stages)
    assert renamed.hash == cell.hash
    changed = [
        Cell(cell.study, cell.phase, cell.labels, {**cell.settings, "seed": 7}, cell.stages),
        Cell(cell.study, cell.phase, cell.labels, cell.settings, (1, 2)),
    ]
    assert len({cell.hash, *(each.hash for each in changed)}) == 3


def test_cell_of_a_row_and_of_one_whose_settings_have_changed():
    cell = STUDY.pending("s", {}, [0])[0]
    assert STUDY.cell_of(row(cell, 1.0)) == cell
    changed = replace(STUDY, base={"train_batch_size": 5})
    with pytest.raises(UsageError, match=f"--cell {cell.hash}: the settings of the study s .* abc"):
        changed.cell_of(row(cell, 1.0))


@pytest.mark.parametrize("name", STUDIES)
def test_every_setting_of_every_study_is_one_of_the_trainer(name):
    fields = DistillConfig.__dataclass_fields__
    own = {"teacher_sha256", "prune", "random_init", "samplers"}
    hashes = set()
    for _, settings in STUDIES[name].combinations():
        DistillConfig(**{key: value for key, value in settings.items() if key not in own})
        assert settings.keys() - own <= fields.keys()
        hashes.add(repr(sorted(settings.items())))
    assert len(hashes) == len(list(STUDIES[name].combinations()))  # no two levels are the same
    assert set(STUDIES[name].rates) <= set(RATES)
