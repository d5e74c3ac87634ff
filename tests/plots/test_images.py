import numpy as np
import torch
from PIL import Image

from liftplace.plots.images import LABEL_HEIGHT, save_grid, save_labelled_rows, to_pixels


def read(path):
    return np.array(Image.open(path).convert("RGB"))


def test_pixels_are_rounded_and_clipped():
    images = torch.tensor([-2.0, -1.0, 0.0, 1.0, 3.0]).reshape(1, 1, 1, 5)
    pixels = to_pixels(images)
    assert pixels.shape == (1, 1, 5, 3) and pixels.dtype == np.uint8
    assert pixels[0, 0, :, 0].tolist() == [0, 0, 128, 255, 255]


def test_grid_puts_every_image_in_its_place(tmp_path):
    shades = torch.linspace(-1, 0.5, 5).reshape(5, 1, 1, 1).expand(5, 1, 16, 16)
    save_grid(shades, tmp_path / "grid.png", columns=3)
    grid = read(tmp_path / "grid.png")
    assert grid.shape == (2 * 66 + 2, 3 * 66 + 2, 3)
    centres = [grid[2 + 32 + 66 * row, 2 + 32 + 66 * column, 0] for row, column in np.ndindex(2, 3)]
    assert centres[:5] == [to_pixels(shade[None])[0, 0, 0, 0] for shade in shades]
    assert centres[5] == 255


def test_large_colour_images_are_not_enlarged(tmp_path):
    image = torch.rand(1, 3, 100, 80, generator=torch.Generator().manual_seed(0)) * 2 - 1
    save_grid(image, tmp_path / "grid.png")
    assert np.array_equal(read(tmp_path / "grid.png")[2:-2, 2:-2], to_pixels(image)[0])


def test_labelled_rows_show_every_row(tmp_path):
    dark, bright = torch.full((6, 1, 16, 16), -1.0), torch.full((6, 1, 16, 16), 0.0)
    save_labelled_rows({"dark": dark, "grey": bright}, tmp_path / "rows.png", title="Two rows")
    picture = read(tmp_path / "rows.png")
    column = picture[:, int(picture.shape[1] * 0.8)]
    assert (column == 0).all(axis=1).any() and (column == 128).all(axis=1).any()
    assert (picture[:40] < 128).any(), "the title is missing"


def test_labels_stand_below_their_images(tmp_path):
    images = torch.full((3, 1, 16, 16), -1.0)
    labels = ["a", "", "a prompt that is much longer than its image is wide"]
    save_grid(images, tmp_path / "grid.png", columns=2, labels=labels)
    grid = read(tmp_path / "grid.png")
    below = LABEL_HEIGHT + 2
    assert grid.shape == (2 * (64 + below) + 2, 2 * 66 + 2, 3)

    def ink(row, column):
        top, left = 66 + row * (64 + below), 2 + 66 * column
        return (grid[top : top + LABEL_HEIGHT, left : left + 64] < 128).sum()

    assert 0 < ink(0, 0) < ink(1, 0) and ink(0, 1) == 0
    assert (grid[66 + 64 + below :, 66:68] == 255).all()  # cut off at the image's width


def test_rows_have_labels_above_their_columns(tmp_path):
    rows = {"dark": torch.full((3, 1, 16, 16), -1.0)}
    save_labelled_rows(rows, tmp_path / "without.png", title="One row")
    save_labelled_rows(rows, tmp_path / "with.png", title="One row", column_labels=["a", "$b", "c"])
    without, labelled = read(tmp_path / "without.png"), read(tmp_path / "with.png")
    assert len(labelled) > len(without)
    band = labelled[60:-100, int(without.shape[1] * 0.55) :]  # beside title and row label
    assert (band < 100).any()
