"""Small folders of images."""

import json

from PIL import Image


def save_images(folder, names, size=16):
    """Noise of its own for each name; parents are made."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.effect_noise((size, size), 60).convert("RGB").save(path)


def save_captions(folder, captions, column="text"):
    entries = ({"file_name": name, column: text} for name, text in captions.items())
    lines = [json.dumps(entry, ensure_ascii=False) + "\n" for entry in entries]
    (folder / "metadata.jsonl").write_text("".join(lines), encoding="utf-8")


def damage(path):
    """Leave a picture's header and nothing behind it."""
    content = path.read_bytes()
    path.write_bytes(content[:60] + bytes(len(content) - 60))
