"""The tables of docs/kernels.md, from the CSV files."""

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from benchmarks import markdown, results
from benchmarks.cases import Case
from benchmarks.compile_rows import SCHEDULERS
from benchmarks.markdown import number
from benchmarks.targets import OURS_ON_CUDA, Target, faster, find, targets
from liftplace.common.errors import UsageError

OURS_ON_CPU = ("native", "torch")
# Issue cycles as time: multiprocessors and MHz of the chip that the targets name, an H200.
_PROCESSORS, _MHZ = 132, 1980
Line = dict[str, object]  # a table's line, by the heads of its columns


def table(lines: list[Line], command: str) -> str:
    """A Markdown table, or without lines the command that measures them."""
    if not lines:
        return not_measured(command)
    return markdown.table(list(lines[0]), [list(line.values()) for line in lines])


def not_measured(command: str) -> str:
    return f"Not measured yet: `python -m benchmarks {command}`."


def ops_on_cpu(folder: Path, op: str) -> str:
    """Ours against the others, by shape and number of threads."""
    lines = []
    for case, rows in _cases(folder / "ops_cpu.csv", op):
        naive, compiled, mse, copy = (
            find(rows, name) for name in ("naive", "compile", "mse", "copy")
        )
        for row in filter(None, (find(rows, name) for name in OURS_ON_CPU)):
            bytes_ = {
                key: f"{row[key] / case.elements:.1f} ({naive[key] / case.elements:.1f})"
                for key in ("bytes_peak", "bytes_kept")
            }
            lines.append(
                {
                    "shape": _shape(case),
                    "threads": case.threads,
                    "impl": row["implementation"],
                    "ms": number(row["ms_p50"]),
                    "times as fast as the authors' style": number(row["ratio_p50"]),
                    "as `torch.compile` of the reference": _faster(row, compiled),
                    "time / `F.mse_loss`": _faster(mse, row),
                    "time / copy": _faster(copy, row),
                    "peak bytes an element (authors')": bytes_["bytes_peak"],
                    "kept (authors')": bytes_["bytes_kept"],
                }
            )
    return table(lines, "ops --device cpu")


def ops_on_cuda(folder: Path, op: str) -> str:
    """Ours against the others from a warm L2; the copy also from a cold one."""
    lines = []
    for case, rows in _cases(folder / "ops_cuda.csv", op):
        eager = {name: find(rows, name, "eager", "warm") for name in _names(rows)}
        graph = {name: find(rows, name, "graph", "warm") for name in _names(rows)}
        for name in OURS_ON_CUDA:
            row, recorded = eager.get(name), graph.get(name)
            if not row:
                continue
            peak = row["bytes_peak"] / case.elements - case.dtype.itemsize
            cold = (find(rows, each, "graph", "cold") for each in ("copy", name))
            lines.append(
                {
                    "shape": _shape(case),
                    "dtype": case.dtype_name,
                    **({"groups of": case.group_size} if op == "place" else {}),
                    "impl": name,
                    "ms eager": number(row["ms_p50"]),
                    "ms in a graph": number(recorded["ms_p50"]) if recorded else "",
                    "times as fast as the authors' style": number(row["ratio_p50"]),
                    "as `torch.compile`": _faster(row, eager.get("compile")),
                    "as max-autotune": _faster(row, eager.get("compile-max-autotune")),
                    "time / `F.mse_loss` eager": _faster(eager.get("mse"), row),
                    "in a graph": _faster(graph.get("mse"), recorded),
                    "time / copy in a graph": _faster(graph.get("copy"), recorded),
                    "cold": _faster(*cold),
                    "peak bytes an element beside the gradient": f"{peak:.1f}",
                    "launches": number(row["launches"]) if row["launches"] != "" else "",
                }
            )
    return table(lines, "ops --device cuda")


def goals(folder: Path, device: str) -> str:
    """Every target beside what was measured, a column for each shape."""
    rows = _cases(folder / f"ops_{device}.csv")
    found = [target for case, of_case in rows for target in targets(case, of_case)]
    blank = dict.fromkeys((_shape(target.case) for target in found), "")
    lines: dict[tuple, Line] = {}
    for target in found:
        case = target.case
        what = f"{case.op}, {case.dtype_name}"
        what += f", groups of {case.group_size}" if case.group_size else ""
        what += f", {case.threads} thread{'s'[: case.threads > 1]}" if device == "cpu" else ""
        name = f"{target.name}, {target.text}" if device == "cpu" else target.text
        head = {"": what, "target": name}
        head |= {"mode": target.mode} if device == "cuda" else {}
        head |= {" ": target.relation}
        line = lines.setdefault(tuple(head.values()), head | blank)
        line[_shape(case)] = _verdict(target, device)
    return table(list(lines.values()), f"ops --device {device}")


def _verdict(target: Target, device: str) -> str:
    name = f" {target.name}" if device == "cuda" else ""
    text = f"{number(target.measured)}{name}"
    return text if target.met else f"**{text}, missed**"


def compiled(folder: Path) -> str:
    """The most of every kernel over architectures and launches, a column for each compiler."""
    rows = _of_files(folder, "compile_*.csv")
    keys = ("registers", "stack", "shared", "instructions")
    lines = []
    for kernel in sorted({row["kernel"] for row in rows}):
        line = {"kernel": f"`{kernel}`"}
        for compiler in _values(rows, "compiler"):
            of = [r for r in rows if (r["kernel"], r["compiler"]) == (kernel, compiler)]
            line[compiler] = ", ".join(_most(of, key) for key in keys) if of else ""
        lines.append(line)
    return table(lines, "compile")


def _most(rows: list[dict[str, str]], key: str) -> str:
    return max((row[key] for row in rows), key=lambda text: int(text or 0)) or "-"


def issue(folder: Path) -> str:
    """Issue cycles a row of PLACE's forward on sm_90, and as time on a whole chip."""
    rows = [row for row in _of_files(folder, "issue_*.csv") if row["arch"] == "sm_90"]
    compilers, lines = _values(rows, "compiler"), []

    def line(n: int, count: str, kernel: str, of: list[dict], text: Callable) -> Line:
        cycles = {c: _cycles(row for row in of if row["compiler"] == c) for c in compilers}
        head = {"row length": f"{n:,}", "rows": count, "kernel": kernel}
        return head | {c: text(total) if total else "" for c, total in cycles.items()}

    for n in sorted({int(row["n"]) for row in rows}):
        of_n = [row for row in rows if int(row["n"]) == n]
        for kernel in _values(of_n, "kernel"):
            of_kernel = [row for row in of_n if row["kernel"] == kernel]
            lines.append(line(n, "", f"`{kernel}`", of_kernel, "{:,.0f}".format))
        count = of_n[0]["rows"]
        us = int(count) / _PROCESSORS / _MHZ
        whole = partial(lambda us, total: f"{total:,.0f}; {total * us:.1f} us", us)
        lines.append(line(n, count, "all", of_n, whole))
    return table(lines, "compile")


def _cycles(rows: Iterable[dict[str, str]]) -> float:
    issued = ((int(r["programs"]) * int(r["warps"]) * int(r["executed"]), r["rows"]) for r in rows)
    return sum(count / SCHEDULERS / int(per) for count, per in issued)


def steps(folder: Path, device: str) -> str:
    """Whole training steps and the loss's share of them."""
    lines = []
    for row in results.load(folder / f"step_{device}.csv"):
        loss_ms, share = row["loss_ms_p50"], row["share_p50"]
        lines.append(
            {
                "model": row["model"],
                "parameters": f"{int(row['parameters']):,}",
                **{name: row[name] for name in ("shape", "precision", "loss", "mode")},
                "step, ms": number(float(row["ms_p50"])),
                "loss, ms": number(float(loss_ms)) if loss_ms else "",
                "share of the step": f"{float(share):.2%}" if share else "",
            }
        )
    return table(lines, f"step --device {device}")


def training(folder: Path, device: str) -> str:
    """Steps a second of the trainer, and how many times as fast as eager with a loader."""
    lines = []
    for row in results.load(folder / f"train_{device}.csv"):
        ratios = (number(float(row[f"ratio_p{p}"])) for p in (50, 20, 80))
        lines.append(
            {
                "student": row["student"],
                "parameters": f"{int(row['parameters']):,}",
                **{name: row[name] for name in ("loss", "precision", "mode")},
                "images": row["data"],
                "steps a second": number(float(row["steps_per_second"])),
                "times as fast (20th to 80th percentile)": "{} ({} to {})".format(*ratios),
            }
        )
    return table(lines, f"train --device {device}")


def sweeps(folder: Path, device: str) -> str:
    """What `auto` chooses and what was measured; the chosen one stands in bold."""
    rows = results.load(folder / f"sweep_{device}.csv")
    rows = [row for row in rows if row["kind"] == "implementation"]
    blank = {f"{name}, ms": "" for name in _values(rows, "name")}
    heads = {"op": "op", "dtype": "dtype", "group_size": "groups of", "rows": "rows"}
    heads |= {"n": "row length", "mode": "mode"}
    lines: dict[tuple, Line] = {}
    for row in rows:
        head = {text: row[key] for key, text in heads.items()}
        time = number(float(row["ms_p50"]))
        line = lines.setdefault(tuple(head.values()), head | blank)
        line[f"{row['name']}, ms"] = f"**{time}**" if row["chosen"] else time
    return table(list(lines.values()), f"sweep --device {device}")


TABLES: dict[str, Callable[[Path], str]] = {"compile": compiled, "issue": issue}
for _op in ("place", "lift"):
    TABLES |= {
        f"{_op}_cpu": partial(ops_on_cpu, op=_op),
        f"{_op}_cuda": partial(ops_on_cuda, op=_op),
    }
for _name, _of in {"targets": goals, "step": steps, "train": training, "sweep": sweeps}.items():
    TABLES |= {f"{_name}_{_device}": partial(_of, device=_device) for _device in ("cpu", "cuda")}


def table_named(folder: Path, name: str) -> str:
    """The table of a page's marker, from the CSV files of the folder."""
    if name not in TABLES:
        raise UsageError(f"no table {name!r}; there are {', '.join(TABLES)}")
    return TABLES[name](folder)


def _cases(path: Path, op: str | None = None) -> list[tuple[Case, list[dict]]]:
    """The rows of a file as numbers, case by case."""
    found: dict[Case, list[dict]] = {}
    for row in results.numbers(results.load(path)):
        if op in (None, row["op"]):
            found.setdefault(results.case_of(row), []).append(row)
    order = sorted(found, key=lambda case: (case.dtype.itemsize != 4, case.group_size or 0))
    return [(case, found[case]) for case in order]


def _of_files(folder: Path, pattern: str) -> list[dict[str, str]]:
    return [row for path in sorted(folder.glob(pattern)) for row in results.load(path)]


def _values(rows: Iterable[dict], key: str) -> list:
    """Each value of a column once, in order of appearance."""
    return list(dict.fromkeys(row[key] for row in rows))


def _names(rows: list[dict]) -> list[str]:
    return _values(rows, "implementation")


def _shape(case: Case) -> str:
    return "x".join(map(str, case.shape))


def _faster(row: dict | None, other: dict | None) -> str:
    return number(faster(row, other)) if row and other else ""
