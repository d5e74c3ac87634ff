"""The floors of the house: what is lower never imports what is higher, lazily either."""

import ast
from collections import defaultdict
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import liftplace

PACKAGE = Path(liftplace.__file__).parent
# From the ground up; rooms of one floor do not know each other. "" are the loss ops, the files
# right in the package.
FLOORS = (
    {""}, {"common"}, {"families", "plots"}, {"models"}, {"data"}, {"evaluate"}, {"students"},
    {"train"}, {"analyze", "report"}, {"demo"}, {"cli"},
)  # fmt: skip


def modules() -> dict[str, Path]:
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = ("liftplace", *path.relative_to(PACKAGE).with_suffix("").parts)
        found[".".join(parts).removesuffix(".__init__")] = path
    return found


def imports(path: Path, known) -> set[str]:
    """The package's modules that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            whole = (f"{node.module}.{name.name}" for name in node.names)
            found |= {name if name in known else node.module for name in whole}
    return found & known


def room_of(module: str) -> str:
    name = module.split(".")[1] if "." in module else ""
    if name in ("cli", "__main__"):
        return "cli"
    return name if (PACKAGE / name).is_dir() and name != "kernels" else ""


def test_nothing_imports_what_is_higher_or_beside():
    known = modules()
    height = {room: number for number, floor in enumerate(FLOORS) for room in floor}
    assert {room_of(module) for module in known} == set(height)
    for module, path in known.items():
        ours = room_of(module)
        for other in imports(path, known.keys()):
            theirs = room_of(other)
            assert theirs == ours or height[theirs] < height[ours], f"{module} imports {other}"


def test_no_module_imports_itself_by_way_of_others():
    known = modules()
    graph = defaultdict(set)
    for module, path in known.items():
        graph[module] = imports(path, known.keys()) - {module}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        raise AssertionError(" imports ".join(error.args[1])) from None
