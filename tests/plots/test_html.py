import pytest
from PIL import Image

from liftplace.plots import html
from tests.analyze.html_page import Page


def test_text_is_escaped_and_tags_match(tmp_path):
    Image.new("RGB", (300, 10)).save(tmp_path / "a.png", dpi=(150, 150))
    parts = [
        html.heading("<h>"),
        html.note("a & b"),
        html.lines(["<l>", "m"]),
        html.table([["", "<x>"], ["<y>", "1"]]),
        html.folded("<more>", html.table([["a"], ["b"]])),
        html.figure(tmp_path / "a.png", alt='says "<this>"', caption="<c>"),
    ]
    page = Page(html.page("<title>", "<heading>", parts))
    assert page.texts == ["<l>", "m"]
    assert page.cells == ["<x>", "<y>", "1", "a", "b"]
    assert page.tags >= {"details", "summary", "figcaption"} and not page.tags & {"x", "y", "c"}
    assert page.images[0]["alt"] == 'says "<this>"'


@pytest.mark.parametrize("dots, width", [(150, "200"), (100, "300")])
def test_pictures_are_100_pixels_an_inch(tmp_path, dots, width):
    Image.new("RGB", (300, 10)).save(tmp_path / "a.png", dpi=(dots, dots))
    page = Page(html.page("", "", [html.figure(tmp_path / "a.png", alt="a", caption="")]))
    assert page.images[0]["width"] == width
