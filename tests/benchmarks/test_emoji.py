import io
from unittest.mock import patch

import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from fontTools.ttLib import newTable
from fontTools.ttLib.tables.BitmapGlyphMetrics import BigGlyphMetrics, SmallGlyphMetrics
from fontTools.ttLib.tables.C_B_D_T_ import cbdt_bitmap_format_17
from fontTools.ttLib.tables.E_B_L_C_ import (
    BitmapSizeTable,
    SbitLineMetrics,
    Strike,
    eblc_index_sub_table_1,
)
from PIL import Image

from benchmarks import emoji
from benchmarks.__main__ import main
from liftplace.data import load_dataset

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def square():
    pen = TTGlyphPen(None)
    for number, point in enumerate([(100, 0), (100, 800), (900, 800), (900, 0)]):
        (pen.lineTo if number else pen.moveTo)(point)
    pen.closePath()
    return pen.glyph()


def builder(names):
    font = FontBuilder(1000, isTTF=True)
    font.setupGlyphOrder([".notdef", *names])
    single = [name for name in names if len(name) == 1]
    font.setupCharacterMap({ord(name): name for name in single})
    font.setupGlyf({name: square() for name in [".notdef", *names]})
    font.setupHorizontalMetrics({name: (1000, 100) for name in [".notdef", *names]})
    font.setupHorizontalHeader(ascent=800, descent=-200)
    font.setupNameTable({"familyName": "test"})
    font.setupOS2()
    font.setupPost()
    return font


@pytest.fixture
def outlines(tmp_path):
    """Squares: A red, B green, A and B together blue, C red again, D without colour."""
    font = builder(["A", "B", "C", "D", "A_B"])
    colours = {"A": 0, "B": 1, "C": 0, "A_B": 2}
    font.setupCOLR({name: [("D", number)] for name, number in colours.items()}, version=0)
    font.setupCPAL([[(*(value / 255 for value in colour), 1) for colour in (RED, GREEN, BLUE)]])
    font.addOpenTypeFeatures("feature ccmp { sub A B by A_B; } ccmp;")
    font.save(tmp_path / "outlines.ttf")
    return tmp_path / "outlines.ttf"


@pytest.fixture
def bitmaps(tmp_path):
    """Twice as wide as high: A red, B clear, C green."""
    font = builder(["A", "B", "C"]).font
    glyphs = {}
    for name, colour in [("A", RED), ("B", (0, 0, 0, 0)), ("C", GREEN)]:
        glyph = glyphs[name] = cbdt_bitmap_format_17(b"", font)
        glyph.metrics, content = SmallGlyphMetrics(), io.BytesIO()
        vars(glyph.metrics).update(height=32, width=64, BearingX=0, BearingY=32, Advance=64)
        Image.new("RGBA", (64, 32), colour).save(content, "PNG")
        glyph.imageData = content.getvalue()
    font["CBDT"], font["CBLC"] = newTable("CBDT"), newTable("CBLC")
    font["CBDT"].version = font["CBLC"].version = 3.0
    font["CBDT"].strikeData = [glyphs]
    font["CBLC"].strikes = [strike_of(list(glyphs), font)]
    font.save(tmp_path / "bitmaps.ttf")
    return tmp_path / "bitmaps.ttf"


def strike_of(names, font):
    fields = "ascender descender widthMax caretSlopeNumerator caretSlopeDenominator caretOffset"
    fields += " minOriginSB minAdvanceSB maxBeforeBL minAfterBL pad1 pad2"
    line = dict.fromkeys(fields.split(), 0)
    strike, size = Strike(), BitmapSizeTable()
    vars(size).update(colorRef=0, ppemX=64, ppemY=64, bitDepth=32, flags=1)
    size.hori, size.vert = SbitLineMetrics(), SbitLineMetrics()
    vars(size.hori).update(line)
    vars(size.vert).update(line)
    table = eblc_index_sub_table_1(b"", font)
    table.names, table.indexFormat, table.imageFormat = names, 1, 17
    table.metrics = BigGlyphMetrics()
    strike.bitmapSizeTable, strike.indexSubTables = size, [table]
    return strike


def write(out, *fonts):
    return main(["emoji", *map(str, fonts), "--out", str(out), "--resolution", "16"])


def colours(folder):
    """Of the middle of every picture, by its name."""
    return {path.stem: Image.open(path).getpixel((8, 8)) for path in folder.rglob("*.png")}


def test_outlines_once_each_and_of_the_glyph_that_code_points_join_to(tmp_path, outlines):
    assert write(tmp_path / "out", outlines) == 0
    assert colours(tmp_path / "out") == {"A": RED, "B": GREEN, "A_B": BLUE}
    picture = Image.open(tmp_path / "out" / "train" / "outlines" / "A.png")
    assert picture.size == (16, 16) and picture.mode == "RGB"
    assert picture.getpixel((0, 0)) == picture.getpixel((15, 15)) == (255, 255, 255)


def test_bitmaps_on_a_white_square(tmp_path, bitmaps):
    assert write(tmp_path / "out", bitmaps) == 0
    assert colours(tmp_path / "out") == {"A": RED, "C": GREEN}  # B is all white
    picture = Image.open(tmp_path / "out" / "train" / "bitmaps" / "A.png")
    green = [picture.getpixel((8, row))[1] for row in range(16)]  # 255 in white, 0 in red
    assert min(green[:3] + green[-3:]) > 250  # a quarter above, a quarter below
    assert max(green[6:10]) < 5


def test_the_folder_is_a_dataset_with_a_split(tmp_path, outlines, bitmaps, capsys):
    with patch.object(emoji, "TEST_EVERY", 2):
        assert write(tmp_path / "out", outlines, bitmaps) == 0
    assert "3 pictures in train, 2 in test" in capsys.readouterr().out
    train = load_dataset(tmp_path / "out", resolution=16, labels=True)
    assert (len(train), train.classes) == (3, ("bitmaps", "outlines"))
    assert len(load_dataset(tmp_path / "out", resolution=16, split="test")) == 2


def test_what_cannot_be_drawn_is_named(tmp_path, outlines, capsys):
    plain = tmp_path / "plain.ttf"
    builder(["A"]).save(plain)
    (tmp_path / "no_font.ttf").write_bytes(b"no font at all")
    for path, message in [
        (plain, "plain.ttf has no colour bitmaps (CBDT) and no outlines"),
        (tmp_path / "no_font.ttf", "cannot read the font"),
        (tmp_path / "missing.ttf", "cannot read the font"),
    ]:
        assert write(tmp_path / "out", outlines, path) == 2
        assert message in capsys.readouterr().err
        assert not (tmp_path / "out").exists()
    assert write(tmp_path, outlines) == 2
    assert "is not empty: name a new folder" in capsys.readouterr().err
