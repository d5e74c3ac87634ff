"""Tables and figures that are written into Markdown pages, between comments that name them."""

import re
from collections.abc import Callable


def fill(text: str, writers: dict[str, Callable[[str], str]]) -> str:
    """A page with all that is between `<!-- KIND NAME -->` and `<!-- end -->` written anew.

    Args:
        writers: by KIND, from the name to what stands there; a table has lines of its own.
    """

    def fresh(marked: re.Match) -> str:
        head, kind, name, end = marked.groups()
        written = writers[kind](" ".join(name.split()))
        return f"{head}\n{written}\n{end}" if kind == "table" else f"{head}{written}{end}"

    return re.sub(
        rf"(<!-- ({'|'.join(writers)}) (.+?) -->).*?(<!-- end -->)", fresh, text, flags=re.S
    )


def table(head: list[str], lines: list[list]) -> str:
    """A Markdown table."""
    rows = (head, ["---"] * len(head), *lines)
    cells = ([str(cell).strip().replace("|", "\\|") for cell in row] for row in rows)
    return "\n".join(f"| {' | '.join(row)} |" for row in cells)


def number(value: float) -> str:
    """Three digits, and whole numbers whole."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
