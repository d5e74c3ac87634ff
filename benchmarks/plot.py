"""python -m benchmarks plot: draw the committed CSV files, one picture for each kind of device."""

import sys
from pathlib import Path

from benchmarks.results import load

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
PANELS = (
    ("time relative to the authors' style", lambda row, mse: 1 / float(row["ratio_p50"])),
    ("time relative to F.mse_loss (log)", lambda row, mse: _over(row, mse, "ms_p50")),
    ("peak memory, bytes an element", lambda row, mse: _per_element(row, "bytes_peak")),
    ("kept for backward, bytes an element", lambda row, mse: _per_element(row, "bytes_kept")),
)


def main(results: Path, out: Path) -> int:
    paths = [path for path in (results / "ops_cpu.csv", results / "ops_cuda.csv") if path.exists()]
    if not paths:
        print(f"no ops_cpu.csv or ops_cuda.csv in {results}: run `python -m benchmarks ops` first",
              file=sys.stderr)  # fmt: skip
        return 2
    for path in paths:
        print(draw(load(path), out / path.with_suffix(".png").name))
    return 0


def draw(rows: list[dict[str, str]], path: Path) -> Path:
    """Bars of PLACE, groups of 16, float32, eager, at the fewest threads that the rows have."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    shapes = _by_shape(rows)
    names = [name for name in STYLE if any(name in found for found in shapes.values())]
    figure, axes = pyplot.subplots(2, 2, figsize=(10, 6.4), layout="constrained")
    for axis, (title, value) in zip(axes.flat, PANELS, strict=True):
        _bars(axis, shapes, names, value)
        axis.set_title(title, loc="left", fontsize=11)
    axes[0, 1].set_yscale("log")
    axes[0, 1].set_ylim(bottom=0.5)
    axes[0, 1].yaxis.set_major_formatter("{x:g}")
    first = next(iter(next(iter(shapes.values())).values()))
    threads = "" if first["driver"] else f", {first['threads']} thread"
    threads += "s" if threads and first["threads"] != "1" else ""
    figure.suptitle(f"PLACE, forward + backward, float32, groups of 16: "
                    f"{first['device']}{threads}", fontsize=12)  # fmt: skip
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center",
                  ncols=min(len(names), 4), frameon=False, fontsize=10)  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=160)
    pyplot.close(figure)
    return path


def _by_shape(rows: list[dict[str, str]]) -> dict[str, dict[str, dict[str, str]]]:
    """The rows to draw: {shape: {implementation: row}}."""
    wanted = {"op": "place", "dtype": "float32", "group_size": "16", "mode": "eager",
              "phase": "both"}  # fmt: skip
    rows = [row for row in rows if all(row[key] == value for key, value in wanted.items())
            and row["l2"] in ("", "warm") and row["implementation"] in STYLE]  # fmt: skip
    if not rows:
        raise ValueError(f"no row to draw: none has {wanted}")
    fewest = min(int(row["threads"]) for row in rows)
    shapes = {}
    for row in rows:
        if int(row["threads"]) == fewest:
            shapes.setdefault(row["shape"], {})[row["implementation"]] = row
    return shapes


def _bars(axis, shapes, names, value) -> None:
    width = 0.8 / len(names)
    for number, name in enumerate(names):
        label, colour = STYLE[name]
        offset = (number - (len(names) - 1) / 2) * width
        found = [(x, value(of_shape[name], of_shape.get("mse")))
                 for x, of_shape in enumerate(shapes.values()) if name in of_shape]  # fmt: skip
        bars = axis.bar([x + offset for x, height in found], [height for _, height in found],
                        width, color=colour, label=label)  # fmt: skip
        texts = [f"{height:.2g}" if height < 10 else f"{height:.0f}" for _, height in found]
        axis.bar_label(bars, texts, fontsize=8, padding=1)
    axis.set_xticks(range(len(shapes)), [f"({shape.replace('x', ', ')})" for shape in shapes],
                    fontsize=9)  # fmt: skip
    axis.margins(y=0.12)
    axis.spines[["top", "right"]].set_visible(False)


def _over(row, other, key: str) -> float:
    return float(row[key]) / float(other[key]) if other else float("nan")


def _per_element(row, key: str) -> float:
    elements = 1
    for size in row["shape"].split("x"):
        elements *= int(size)
    return float(row[key]) / elements
