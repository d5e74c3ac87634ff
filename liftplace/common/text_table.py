"""A table of text for a terminal."""

from collections.abc import Sequence


def text_table(rows: Sequence[Sequence[str]], *, left: int = 1, ruled: bool = False) -> str:
    """The rows in columns.

    Args:
        rows: the header and the others, of as many cells each.
        left: the number of columns, from the first, whose cells stand at the left; those of the
            others stand at the right.
        ruled: a line of dashes below the header.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [_line(row, widths, left) for row in rows]
    if ruled:
        lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def _line(row: Sequence[str], widths: Sequence[int], left: int) -> str:
    cells = zip(row, widths, strict=True)
    aligned = [
        cell.ljust(width) if number < left else cell.rjust(width)
        for number, (cell, width) in enumerate(cells)
    ]
    return "  ".join(aligned).rstrip()
