"""Sizes of images: one number for squares, as --resolution gives it, or (height, width)."""

from liftplace.common.errors import UsageError
from liftplace.common.settings import at_least

Resolution = int | tuple[int, int]


def height_width(resolution: Resolution) -> tuple[int, int]:
    return (resolution, resolution) if isinstance(resolution, int) else tuple(resolution)


def of_sides(height: int, width: int) -> Resolution:
    return height if height == width else (height, width)


def check_resolution(resolution: Resolution) -> None:
    """
    Raises:
        UsageError: it is neither a positive number nor two of them.
    """
    sides = list(resolution) if isinstance(resolution, (tuple, list)) else [resolution] * 2
    whole = all(isinstance(side, int) and not isinstance(side, bool) for side in sides)
    if len(sides) != 2 or not whole or min(sides) < 1:
        what = "two integers" if isinstance(resolution, (tuple, list)) else "an integer"
        raise UsageError(f"resolution must be {what} of at least 1, got {resolution!r}")


def check_image_size(config) -> None:
    """
    Raises:
        UsageError: --resolution, --height and --width of a configuration are no size.
    """
    at_least(1, config, "resolution", "height", "width")
    image_size(config)


def image_size(config) -> Resolution | None:
    """What --resolution, or --height and --width, of a configuration say; None for neither.

    Raises:
        UsageError: one of --height and --width without the other, or beside --resolution.
    """
    height, width = config.height, config.width
    if height is None and width is None:
        return config.resolution
    if height is None or width is None:
        raise UsageError(
            f"give --height and --width together, got {height} and {width}; --resolution is of "
            "squares"
        )
    if config.resolution is not None:
        raise UsageError(
            f"give --resolution {config.resolution} or --height {height} --width {width}, not both"
        )
    return of_sides(height, width)
