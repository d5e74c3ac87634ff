"""python -m benchmarks study: students trained and scored, cell by cell of a grid."""

import argparse
import os
import shutil
import threading
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import replace
from itertools import groupby
from multiprocessing import get_context, parent_process
from pathlib import Path

from tqdm import tqdm

from benchmarks import flags
from benchmarks.environment import environment
from benchmarks.study import sheet
from benchmarks.study.grid import Cell, Study, digest
from benchmarks.study.rows import StudyFiles, student_strip, teacher_strip
from benchmarks.study.studies import STUDIES
from liftplace.common.errors import UsageError
from liftplace.common.text_table import text_table

POLL = 30.0  # seconds between looks at stages of cells that go on
COMPARED = ("status", "fd", "kid", "pixel_error", "task_error", "teacher_error")


def add_flags(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("names", nargs="+", metavar="NAME", help="of benchmarks/study/studies.py")
    add("--device", choices=flags.DEVICES, default="cpu")
    add("--seeds", type=flags.count, default=3, help="that are reported: 0, 1, ...")
    only = "only these for now, as in the study's rows"
    add("--methods", nargs="+", metavar="LABEL", default=None, help=only)
    at_a_time = "processes at a time (default: one a core)"
    add("--jobs", type=flags.count, default=os.cpu_count(), help=at_a_time)
    beside = "students that train together beside one teacher"
    add("--learners", type=flags.count, default=8, help=beside)
    late = "start nothing after so long; the next call goes on"
    add("--minutes", type=float, default=float("inf"), help=late)
    again = "train the cell of this row again, and print both"
    add("--cell", metavar="HASH", default=None, help=again)
    add("--out", type=Path, default=flags.RESULTS, help="folder of study_<name>_<device>.csv")
    unfinished = "of runs that are not finished"
    add("--work_dir", type=Path, default=Path("runs/study"), help=unfinished)
    add("--commit", default=None, help=flags.COMMIT)


def main(options: argparse.Namespace) -> int:
    if options.cell is not None:
        return repeat(options)
    for name in options.names:
        run(name, options)
    return 0


def run(name: str, options: argparse.Namespace) -> None:
    """Train what the study lacks; what is finished is written at once."""
    files = StudyFiles(options.out, name, options.device)
    study, seeds = _chosen(name, options.methods), range(options.seeds)
    where = environment(options.device, options.commit)
    until = time.monotonic() + 60 * options.minutes
    print(f"{name}: {study.question}")
    context = get_context("spawn")
    with (
        ProcessPoolExecutor(options.jobs, context, _start_worker, (options.device,)) as pool,
        tqdm(desc=name, unit="cell") as bar,
    ):
        running: dict[Future, tuple[Cell, ...]] = {}
        try:
            while True:
                in_work = {cell.hash for cells in running.values() for cell in cells}
                pending = files.borrow(study.pending(name, files.known(), seeds))
                free = [cell for cell in pending if cell.hash not in in_work]
                bar.total = bar.n + len(pending)
                bar.refresh()
                # A study with a search learns from each group what comes next.
                groups = together(free, options.learners)
                for cells in sorted(groups, key=len, reverse=True):  # full ones first
                    if len(running) >= options.jobs or time.monotonic() > until:
                        break
                    folder = options.work_dir / name / _folder_name(cells)
                    running[pool.submit(_train, cells, folder, options.device)] = cells
                if not running:
                    break
                done, _ = wait(running, timeout=POLL, return_when=FIRST_COMPLETED)
                for future, cells in list(running.items()):
                    folder = options.work_dir / name / _folder_name(cells)
                    keep(files, cells, folder, where)
                    if future in done:
                        future.result()  # raises what the training raised
                        del running[future]
                        shutil.rmtree(folder)
                        bar.update(len(cells))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    left = len(study.pending(name, files.known(), seeds))
    print(f"{files.rows_path}: {'done' if not left else f'{left} cells or more are left'}")


def _chosen(name: str, methods: list[str] | None) -> Study:
    """The study, or the part of it with these methods.

    Raises:
        UsageError: no such study, or no such method in it.
    """
    if name not in STUDIES:
        raise UsageError(f"no study {name}: there are {', '.join(STUDIES)}")
    study = STUDIES[name]
    if methods is None:
        return study
    if unknown := [label for label in methods if label not in study.methods]:
        raise UsageError(
            f"--methods: the study {name} has no {unknown[0]!r}, but {', '.join(study.methods)}"
        )
    return replace(study, methods={label: study.methods[label] for label in methods})


def together(cells: list[Cell], most: int) -> Iterator[tuple[Cell, ...]]:
    """The cells in groups of at most `most` that can train together, in about their order."""
    first = {}
    for place, cell in enumerate(cells):
        first.setdefault(cell.batches, place)
    ordered = sorted(cells, key=lambda cell: first[cell.batches])
    for _, group in groupby(ordered, key=lambda cell: cell.batches):
        members = list(group)
        for start in range(0, len(members), most):
            yield tuple(members[start : start + most])


def keep(files: StudyFiles, cells: tuple[Cell, ...], folder: Path, where: dict[str, str]) -> None:
    """Write the stages that are finished: samples first, because a cell is known by its row."""
    from benchmarks.study.train import scored_so_far

    known = {(row["hash"], int(row["step"])) for row in files.rows()}
    scored = scored_so_far(cells, folder)
    if all((each.row["hash"], each.row["step"]) in known for each in scored):
        return
    strip_names = {"student": student_strip, "teacher": teacher_strip}
    strips = {
        strip_names[of](each.row): sheet.strip_of(samples)
        for each in scored
        for of, samples in each.pictures.items()
    }
    sheet.add(files.samples_path, strips)
    files.add(
        [where | each.row for each in scored],
        [line for each in scored for line in each.timesteps],
    )


def repeat(options: argparse.Namespace) -> int:
    """Train the cell of a row again, alone, and print both results; nothing is written."""
    for name in options.names:
        rows = StudyFiles(options.out, name, options.device).rows()
        stored = [row for row in rows if row["hash"] == options.cell]
        if not stored:
            continue
        cell = _chosen(name, None).cell_of(stored[0])
        _start_worker(options.device)
        folder = options.work_dir / "again" / cell.hash
        scored = _train((cell,), folder, options.device)
        shutil.rmtree(folder)
        lines = [("step", "", *COMPARED)]
        for row, again in zip(stored, (each.row for each in scored), strict=True):
            lines.append((row["step"], "row", *(row[name] for name in COMPARED)))
            values = (again.get(name, "") for name in COMPARED)
            texts = (f"{value:.5g}" if isinstance(value, float) else value for value in values)
            lines.append(("", "again", *texts))
        print(text_table(lines))
        return 0
    raise UsageError(f"--cell {options.cell}: no such row in {', '.join(options.names)}")


def _folder_name(cells: tuple[Cell, ...]) -> str:
    return digest([cell.hash for cell in cells])


def _start_worker(device: str) -> None:
    import torch

    if device == "cpu":
        torch.set_num_threads(1)  # several processes share the cores
        os.environ["ACCELERATE_USE_CPU"] = "true"  # where there is a GPU too
    if (parent := parent_process()) is not None:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent) -> None:
    """Leaves no worker behind that goes on training for a study that was killed."""
    parent.join()
    os._exit(1)


def _train(cells: tuple[Cell, ...], folder: Path, device: str):
    from benchmarks.study.train import scored_so_far, train

    if not cells[0].keeps_checkpoints and not scored_so_far(cells, folder):
        shutil.rmtree(folder, ignore_errors=True)  # of a run that was stopped: it starts again
    return train(cells, folder, device)
