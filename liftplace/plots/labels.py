"""Short names for what a picture or table compares."""

from pathlib import Path


def labels_of(paths: list[Path]) -> list[str]:
    """The shortest ends of the paths, of one length, that differ."""
    longest = max(len(path.parts) for path in paths)
    for length in range(1, longest + 1):
        labels = ["/".join(path.parts[-length:]) for path in paths]
        if len(set(labels)) == len(paths):
            break
    return labels
