"""Markdown tables from the CSV files, put between `<!-- table NAME -->` and `<!-- end -->`."""

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from benchmarks import results
from benchmarks.cases import Case
from benchmarks.targets import OURS_ON_CUDA, Target, faster, find, targets

_MARKED = re.compile(r"(<!-- table (\w+) -->\n).*?(<!-- end -->)", re.S)
Tables = Mapping[str, Callable[[Path], str]]
OURS_ON_CPU = ("native", "torch")
# Issue cycles as time: multiprocessors and MHz of the chip that the targets name, an H200.
_PROCESSORS, _MHZ = 132, 1980


def fill(page: Path, folder: Path, tables: Tables | None = None) -> bool:
    """Write every marked table of a page anew from the CSV files of `folder`; whether it has any.

    Args:
        tables: by the names in the markers; by default `TABLES`.

    Raises:
        ValueError: a marker names no table.
    """
    tables = TABLES if tables is None else tables

    def fresh(marked: re.Match) -> str:
        if marked[2] not in tables:
            raise ValueError(f"{page}: no table {marked[2]!r}; there are {', '.join(tables)}")
        return f"{marked[1]}{tables[marked[2]](folder)}\n{marked[3]}"

    text, count = _MARKED.subn(fresh, page.read_text())
    if count:
        page.write_text(text)
    return count > 0


def ops_on_cpu(folder: Path, op: str) -> str:
    """Ours against the others, by shape and number of threads."""
    head = ["shape", "threads", "impl", "ms", "times as fast as the authors' style",
            "as `torch.compile` of the reference", "time / `F.mse_loss`", "time / copy",
            "peak bytes an element (authors')", "kept (authors')"]  # fmt: skip
    lines = []
    for case, rows in _cases(folder / "ops_cpu.csv"):
        if case.op != op:
            continue
        naive, compiled, mse, copy = (find(rows, name)
                                      for name in ("naive", "compile", "mse", "copy"))  # fmt: skip
        for name in OURS_ON_CPU:
            if row := find(rows, name):
                lines.append([
                    _shape(case), case.threads, name, number(row["ms_p50"]),
                    number(row["ratio_p50"]), _faster(row, compiled), _faster(mse, row),
                    _faster(copy, row),
                    *(f"{row[key] / case.elements:.1f} ({naive[key] / case.elements:.1f})"
                      for key in ("bytes_peak", "bytes_kept")),
                ])  # fmt: skip
    return table(head, lines, "ops --device cpu")


def ops_on_cuda(folder: Path, op: str) -> str:
    """Ours against the others from a warm L2; the copy also from a cold one."""
    head = ["shape", "dtype", *(["groups of"] if op == "place" else []), "impl", "ms eager",
            "ms in a graph", "times as fast as the authors' style", "as `torch.compile`",
            "as max-autotune", "time / `F.mse_loss` eager", "in a graph", "time / copy in a graph",
            "cold", "peak bytes an element beside the gradient", "launches"]  # fmt: skip
    lines = []
    for case, rows in _cases(folder / "ops_cuda.csv"):
        if case.op != op:
            continue
        for name in OURS_ON_CUDA:
            eager, graph = (find(rows, name, mode, "warm") for mode in ("eager", "graph"))
            if not eager:
                continue
            against = [find(rows, *key) for key in (
                ("compile", "eager", "warm"), ("compile-max-autotune", "eager", "warm"),
                ("mse", "eager", "warm"), ("mse", "graph", "warm"), ("copy", "graph", "warm"),
                ("copy", "graph", "cold"))]  # fmt: skip
            compiled, tuned, mse, mse_graph, copy, copy_cold = against
            size = [case.group_size] if op == "place" else []
            lines.append([
                _shape(case), str(case.dtype).removeprefix("torch."), *size, name,
                number(eager["ms_p50"]), number(graph["ms_p50"]) if graph else "",
                number(eager["ratio_p50"]), _faster(eager, compiled), _faster(eager, tuned),
                _faster(mse, eager), _faster(mse_graph, graph),
                _faster(copy, graph), _faster(copy_cold, find(rows, name, "graph", "cold")),
                f"{eager['bytes_peak'] / case.elements - case.dtype.itemsize:.1f}",
                number(eager["launches"]) if eager["launches"] != "" else "",
            ])  # fmt: skip
    return table(head, lines, "ops --device cuda")


def goals(folder: Path, device: str) -> str:
    """Every target beside what was measured, a column for each shape."""
    found = [target for case, rows in _cases(folder / f"ops_{device}.csv")
             for target in targets(case, rows)]  # fmt: skip
    shapes = list(dict.fromkeys(_shape(target.case) for target in found))
    lines: dict[tuple, dict[str, Target]] = {}
    for target in found:
        case = target.case
        what = f"{case.op}, {str(case.dtype).removeprefix('torch.')}"
        what += f", groups of {case.group_size}" if case.group_size else ""
        what += f", {case.threads} thread{'s'[: case.threads > 1]}" if device == "cpu" else ""
        name = f"{target.name}, {target.text}" if device == "cpu" else target.text
        key = (what, name, target.mode, target.relation)
        lines.setdefault(key, {})[_shape(case)] = target
    head = ["", "target", *(["mode"] if device == "cuda" else []), "", *shapes]
    made = [[what, text, *([mode] if device == "cuda" else []), relation,
             *(_verdict(of.get(shape), device) for shape in shapes)]
            for (what, text, mode, relation), of in lines.items()]  # fmt: skip
    return table(head, made, f"ops --device {device}")


def _verdict(target: Target | None, device: str) -> str:
    if target is None:
        return ""
    value = number(target.measured)
    name = f" {target.name}" if device == "cuda" else ""
    return f"{value}{name}" if target.met else f"**{value}{name}, missed**"


def compiled(folder: Path) -> str:
    """The most of every kernel over architectures and launches, a column for each compiler."""
    rows = [row for path in _sorted(folder, "compile_*.csv") for row in results.load(path)]
    compilers = list(dict.fromkeys(row["compiler"] for row in rows))
    head = ["kernel", *compilers]
    lines, keys = [], ("registers", "stack", "shared", "instructions")
    for kernel in sorted({row["kernel"] for row in rows}):
        of = [[row for row in rows if (row["kernel"], row["compiler"]) == (kernel, compiler)]
              for compiler in compilers]  # fmt: skip
        cells = [", ".join(_most(found, key) for key in keys) if found else "" for found in of]
        lines.append([f"`{kernel}`", *cells])
    return table(head, lines, "compile")


def _most(rows: list[dict[str, str]], key: str) -> str:
    return max((row[key] for row in rows), key=lambda text: int(text or 0)) or "-"


def issue(folder: Path) -> str:
    """Issue cycles a row of PLACE's forward on sm_90, and as time on a whole chip."""
    rows = [row for path in _sorted(folder, "issue_*.csv") for row in results.load(path)
            if row["arch"] == "sm_90"]  # fmt: skip
    compilers = list(dict.fromkeys(row["compiler"] for row in rows))
    lines = []
    for n in sorted({int(row["n"]) for row in rows}):
        of_n = [row for row in rows if int(row["n"]) == n]
        kernels = list(dict.fromkeys(row["kernel"] for row in of_n))
        for kernel in kernels:
            sums = [_cycles(row for row in of_n if (row["kernel"], row["compiler"]) == (kernel, c))
                    for c in compilers]  # fmt: skip
            lines.append([f"{n:,}", "", f"`{kernel}`", *(f"{x:,.0f}" if x else "" for x in sums)])
        count = int(of_n[0]["rows"])
        totals = [_cycles(row for row in of_n if row["compiler"] == c) for c in compilers]
        lines.append([f"{n:,}", count, "all", *(
            f"{x:,.0f}; {x * count / _PROCESSORS / _MHZ:.1f} us" if x else "" for x in totals
        )])  # fmt: skip
    return table(["row length", "rows", "kernel", *compilers], lines, "compile")


def _cycles(rows: Iterable[dict[str, str]]) -> float:
    from benchmarks.compile import SCHEDULERS

    return sum(int(row["programs"]) * int(row["warps"]) * int(row["executed"])
               / SCHEDULERS / int(row["rows"]) for row in rows)  # fmt: skip


def steps(folder: Path, device: str) -> str:
    """Whole training steps and the loss's share of them."""
    head = ["model", "parameters", "shape", "precision", "loss", "mode", "step, ms", "loss, ms",
            "share of the step"]  # fmt: skip
    lines = [[row["model"], f"{int(row['parameters']):,}", row["shape"], row["precision"],
              row["loss"], row["mode"], number(float(row["ms_p50"])),
              number(float(row["loss_ms_p50"])) if row["loss_ms_p50"] else "",
              f"{float(row['share_p50']):.2%}" if row["share_p50"] else ""]
             for row in results.load(folder / f"step_{device}.csv")]  # fmt: skip
    return table(head, lines, f"step --device {device}")


def training(folder: Path, device: str) -> str:
    """Steps a second of the trainer, and how many times as fast as eager with a loader."""
    head = ["student", "parameters", "loss", "precision", "mode", "images", "steps a second",
            "times as fast (20th to 80th percentile)"]  # fmt: skip
    lines = [[row["student"], f"{int(row['parameters']):,}", row["loss"], row["precision"],
              row["mode"], row["data"], number(float(row["steps_per_second"])),
              "{} ({} to {})".format(*(number(float(row[f"ratio_p{p}"])) for p in (50, 20, 80)))]
             for row in results.load(folder / f"train_{device}.csv")]  # fmt: skip
    return table(head, lines, f"train --device {device}")


def sweeps(folder: Path, device: str) -> str:
    """What `auto` chooses and what was measured; the chosen one stands in bold."""
    rows = [row for row in results.load(folder / f"sweep_{device}.csv")
            if row["kind"] == "implementation"]  # fmt: skip
    names = list(dict.fromkeys(row["name"] for row in rows))
    lines: dict[tuple, dict] = {}
    for row in rows:
        key = tuple(row[key] for key in ("op", "dtype", "group_size", "rows", "n", "mode"))
        time = number(float(row["ms_p50"]))
        lines.setdefault(key, {})[row["name"]] = f"**{time}**" if row["chosen"] else time
    head = ["op", "dtype", "groups of", "rows", "row length", "mode", *(f"{n}, ms" for n in names)]
    made = [[*key, *(of.get(name, "") for name in names)] for key, of in lines.items()]
    return table(head, made, f"sweep --device {device}")


TABLES: Tables = {
    "place_cpu": lambda folder: ops_on_cpu(folder, "place"),
    "lift_cpu": lambda folder: ops_on_cpu(folder, "lift"),
    "place_cuda": lambda folder: ops_on_cuda(folder, "place"),
    "lift_cuda": lambda folder: ops_on_cuda(folder, "lift"),
    "targets_cpu": lambda folder: goals(folder, "cpu"),
    "targets_cuda": lambda folder: goals(folder, "cuda"),
    "compile": compiled,
    "issue": issue,
    "step_cpu": lambda folder: steps(folder, "cpu"),
    "step_cuda": lambda folder: steps(folder, "cuda"),
    "train_cpu": lambda folder: training(folder, "cpu"),
    "train_cuda": lambda folder: training(folder, "cuda"),
    "sweep_cpu": lambda folder: sweeps(folder, "cpu"),
    "sweep_cuda": lambda folder: sweeps(folder, "cuda"),
}


def _cases(path: Path) -> list[tuple[Case, list[dict]]]:
    """The rows of a file as numbers, case by case."""
    found: dict[Case, list[dict]] = {}
    for row in results.numbers(results.load(path)):
        found.setdefault(results.case_of(row), []).append(row)
    order = sorted(found, key=lambda case: (case.dtype.itemsize != 4, case.group_size or 0))
    return [(case, found[case]) for case in order]


def table(head: list[str], lines: list[list], command: str) -> str:
    """A Markdown table, or without lines the command that measures them."""
    if not lines:
        return f"Not measured yet: `python -m benchmarks {command}`."
    text = [" | ".join(str(cell).replace("|", "\\|") for cell in line)
            for line in (head, ["---"] * len(head), *lines)]  # fmt: skip
    return "\n".join(f"| {line} |" for line in text)


def _shape(case: Case) -> str:
    return "x".join(map(str, case.shape))


def _faster(row: dict | None, other: dict | None) -> str:
    return number(faster(row, other)) if row and other else ""


def number(value: float) -> str:
    """Three digits, and whole numbers whole."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _sorted(folder: Path, pattern: str) -> list[Path]:
    return sorted(folder.glob(pattern))
