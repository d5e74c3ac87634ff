"""python -m benchmarks plot: the pictures and tables of docs/, from the rows of all runs."""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks import flags, markdown, report
from benchmarks.results import case_of, load, numbers
from benchmarks.study import figures, pages, reading
from benchmarks.targets import faster, find
from liftplace.common.errors import UsageError

DOCS = Path(__file__).parents[1] / "docs"

# Okabe and Ito's colours, told apart by colour-blind readers too.
STYLE = {
    "naive": ("eager, authors' style", "#999999"),
    "compile": ("torch.compile of the reference", "#E69F00"),
    "torch": ("liftplace, impl=torch", "#56B4E9"),
    "native": ("liftplace, impl=native", "#0072B2"),
    "triton": ("liftplace, impl=triton", "#D55E00"),
    "cuda": ("liftplace, impl=cuda", "#CC79A7"),
    "mse": ("F.mse_loss", "#009E73"),
}


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--results", type=Path, default=flags.RESULTS)
    parser.add_argument("--out", type=Path, default=DOCS, help="folder of the pages and pictures")


def main(options: argparse.Namespace) -> int:
    paths = [options.results / f"ops_{device}.csv" for device in flags.DEVICES]
    paths = [path for path in paths if path.exists()]
    if not paths and not reading.find(options.results):
        raise UsageError(
            f"no ops_<device>.csv and no study_<name>_<device>.csv in {options.results}: run "
            "`python -m benchmarks ops` or `python -m benchmarks study` first"
        )
    for path in paths:
        print(draw(load(path), options.out / path.with_suffix(".png").name))
    for picture in figures.draw(options.results, options.out / pages.FOLDER):
        print(picture)
    for page, text in written(options.results, options.out).items():
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(text)
        print(page)
    return 0


def written(results: Path, docs: Path) -> dict[Path, str]:
    """The pages with their tables and numbers written anew, and those of the studies."""
    numbers = pages.Numbers(results)
    tables = partial(report.table_named, results)
    writers = {"table": tables, "value": numbers.value, "ratio": numbers.ratio}
    found = [docs / name for name in ("kernels.md", "results.md", "../README.md")]
    texts = {page: page.read_text() for page in found if page.exists()}
    filled = {page: markdown.fill(text, writers) for page, text in texts.items()}
    return filled | pages.pages(results, docs)


def draw(rows: list[dict[str, str]], path: Path) -> Path:
    """Bars of PLACE, groups of 16, float32, at the fewest threads that the rows have."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    shapes = _by_shape(rows)
    first = next(iter(shapes.values()))[0]
    cuda = case_of(first).device == "cuda"
    in_a_graph = ", in CUDA graphs (the authors' style: eager)" if cuda else ""
    to_copy = f"Time relative to a copy of the floor's bytes{in_a_graph} (log scale)"
    panels = [
        ("Time relative to F.mse_loss (log scale)", _over("mse", "eager"), True),
        (to_copy, _over("copy", "graph" if cuda else "eager"), True),
        ("Peak memory, bytes an element", _memory, False),
    ]
    figure, axes = pyplot.subplots(len(panels), figsize=(10, 8.4), layout="constrained")
    for axis, (title, value, is_ratio) in zip(axes, panels, strict=True):
        _bars(axis, shapes, value)
        axis.set_title(title, loc="left", fontsize=12)
        if is_ratio:
            axis.set_yscale("log")
            axis.yaxis.set_major_formatter("{x:g}")
            axis.axhline(1, color="black", linewidth=1)
            axis.set_ylim(top=2.2 * axis.get_ylim()[1])
    threads = "" if cuda else f", {first['threads']} thread{'s'[: int(first['threads']) > 1]}"
    what = "PLACE, forward + backward, float32, groups of 16"
    figure.suptitle(f"{what}: {first['device']}{threads}", fontsize=13)
    labels = {}
    for axis in axes:
        labels |= dict(zip(*reversed(axis.get_legend_handles_labels()), strict=True))
    order = [label for label, _ in STYLE.values() if label in labels]
    bars, columns = [labels[label] for label in order], min(len(order), 4)
    look = {"loc": "outside lower center", "frameon": False, "fontsize": 11}
    figure.legend(bars, order, ncols=columns, **look)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=160)
    pyplot.close(figure)
    return path


def _by_shape(rows: list[dict[str, str]]) -> dict[str, list[dict]]:
    """The rows to draw: {shape: rows}."""
    wanted = {"op": "place", "dtype": "float32", "group_size": "16"}
    rows = [row for row in rows if row.items() >= wanted.items() and row["l2"] != "cold"]
    if not rows:
        raise ValueError(f"no row to draw: none has {wanted}")
    fewest = min(int(row["threads"]) for row in rows)
    shapes = {}
    for row in numbers(rows):
        if int(row["threads"]) == fewest:
            shapes.setdefault(row["shape"], []).append(row)
    return shapes


Value = Callable[[str, list[dict]], float | None]


def _over(other: str, mode: str) -> Value:
    """Time over that of `other`; the authors' style cannot be captured and stays eager."""

    def value(name: str, rows: list[dict]) -> float | None:
        l2 = rows[0]["l2"]
        row = find(rows, name, "eager" if name == "naive" else mode, l2)
        unit = find(rows, other, mode, l2)
        return faster(unit, row) if row and unit and name != other else None

    return value


def _memory(name: str, rows: list[dict]) -> float | None:
    row = find(rows, name, "eager", rows[0]["l2"])
    return row["bytes_peak"] / case_of(row).elements if row else None


def _bars(axis, shapes: dict[str, list[dict]], value: Value) -> None:
    heights = {name: [value(name, rows) for rows in shapes.values()] for name in STYLE}
    heights = {name: found for name, found in heights.items() if any(found)}
    width = 0.84 / max(len(heights), 1)
    for number, (name, found) in enumerate(heights.items()):
        label, colour = STYLE[name]
        offset = (number - (len(heights) - 1) / 2) * width
        places = [x + offset for x, height in enumerate(found) if height]
        found = [height for height in found if height]
        bars = axis.bar(places, found, width, color=colour, label=label)
        texts = [f"{height:.2g}" if height < 10 else f"{height:.0f}" for height in found]
        axis.bar_label(bars, texts, fontsize=9, padding=1)
    names = [f"({shape.replace('x', ', ')})" for shape in shapes]
    axis.set_xticks(range(len(shapes)), names, fontsize=10)
    axis.margins(y=0.15)
    axis.spines[["top", "right"]].set_visible(False)
