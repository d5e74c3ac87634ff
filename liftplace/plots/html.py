"""The parts of a report that is one HTML file: no scripts, no network, pictures inside."""

import base64
from collections.abc import Sequence
from html import escape
from pathlib import Path

from liftplace import __version__

STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff; margin: 2rem auto;
       max-width: 900px; padding: 0 1rem; overflow-wrap: break-word; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.25rem; margin-top: 2.2rem; }
figure { margin: 0 0 1.2rem; } img { max-width: 100%; height: auto; }
figcaption, .note { color: #444; font-size: 0.9rem; }
.lines { list-style: none; padding: 0; } .lines li { margin-bottom: 0.5rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.85rem; font-variant-numeric: tabular-nums; }
th, td { padding: 0.3rem 0.7rem; border-bottom: 1px solid #ccc; text-align: right;
         vertical-align: bottom; max-width: 15rem; }
th:first-child { text-align: left; font-weight: normal; min-width: 9rem; }
thead th, thead th:first-child { font-weight: bold; }
summary { cursor: pointer; margin: 0.6rem 0; }
@media (max-width: 640px) { .wide > img { max-width: none; width: 40rem; } }
@media print { h2 { break-after: avoid; } figure, tr { break-inside: avoid; }
               .wide { overflow: visible; } }
"""


def page(title: str, heading: str, parts: Sequence[str]) -> str:
    """A whole page.

    Args:
        title: of the window, plain text.
        heading: above the page, plain text.
        parts: HTML, of the functions below.
    """
    body = "\n".join([f"<h1>{escape(heading)}</h1>", *parts])
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n"
        f"<body>\n{body}\n{note(f'liftplace {__version__}')}\n</body>\n</html>\n"
    )


def heading(text: str) -> str:
    return f"<h2>{escape(text)}</h2>"


def note(text: str) -> str:
    return f'<p class="note">{escape(text)}</p>'


def lines(texts: Sequence[str]) -> str:
    """A list without marks, a text an item."""
    items = "\n".join(f"<li>{escape(text)}</li>" for text in texts)
    return f'<ul class="lines">\n{items}\n</ul>'


def figure(picture: Path, *, alt: str, caption: str) -> str:
    """A PNG, kept inside the page, 100 pixels wide an inch; on a narrow screen it is scrolled.

    Args:
        picture: the file, which says how many dots an inch it has.
        alt: what it shows, for those who do not see it.
        caption: how to read it.
    """
    from PIL import Image

    data = base64.b64encode(picture.read_bytes()).decode("ascii")
    with Image.open(picture) as image:
        width = round(100 * image.width / image.info["dpi"][0])
    return (
        f'<figure><div class="wide"><img src="data:image/png;base64,{data}" width="{width}" '
        f'alt="{escape(alt)}"></div>\n<figcaption>{escape(caption)}</figcaption></figure>'
    )


def table(rows: Sequence[Sequence[str]]) -> str:
    """The first row is the header, the first cell of the others names them."""
    header, *others = rows
    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in header)
    body = "\n".join(
        f'<tr><th scope="row">{escape(first)}</th>'
        + "".join(f"<td>{escape(cell)}</td>" for cell in rest)
        + "</tr>"
        for first, *rest in others
    )
    return (
        f'<div class="wide"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n'
        "</table></div>"
    )


def folded(summary: str, content: str) -> str:
    """HTML that is shown on a click."""
    return f"<details>\n<summary>{escape(summary)}</summary>\n{content}\n</details>"
