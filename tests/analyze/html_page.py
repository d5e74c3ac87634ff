"""A reader of reports."""

from html.parser import HTMLParser

VOID = {"meta", "img"}


class Page(HTMLParser):
    """What a page shows, and whether its tags match."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open, self.tags, self.images, self.cells, self.links = [], set(), [], [], []
        self.texts = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.links += [value for name, value in attributes if name in ("src", "href")]
        if tag == "img":
            self.images.append(dict(attributes))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("td", "th"):
            self.cells.append(data)
        if self.open and self.open[-1] == "li":
            self.texts.append(data)
