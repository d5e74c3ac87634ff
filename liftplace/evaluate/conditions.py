"""Captions and classes of samples, as the real images have them that samples are scored against."""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

from torch.utils.data import Dataset

from liftplace.common.distributed import distributed_state
from liftplace.common.errors import UsageError
from liftplace.data.encoder import Encoder
from liftplace.evaluate.features import open_reference
from liftplace.evaluate.subsets import shuffled

C = TypeVar("C")  # of a dataclass with `prompts` and `class_labels`


@dataclass(frozen=True)
class DrawnConditions:
    """Of each sample that of one real image, so that both sets have the same frequencies; None
    where the user gave them, or the model takes none."""

    prompts: tuple[str, ...] | None = None
    class_labels: tuple[int, ...] | None = None

    def given_to(self, config: C) -> C:
        """The settings with these prompts and classes in them."""
        drawn = {"prompts": self.prompts, "class_labels": self.class_labels}
        return replace(config, **{name: each for name, each in drawn.items() if each is not None})

    def record(self) -> dict:
        """What samples depend on, as JSON has it: under "drawn", or nothing."""
        drawn = {}
        if self.prompts is not None:
            text = "\n".join(self.prompts)
            drawn["prompts_sha256"] = hashlib.sha256(text.encode()).hexdigest()
            drawn["num_prompts"] = len(set(self.prompts))
        if self.class_labels is not None:
            drawn["classes"] = {str(n): count for n, count in counts(self.class_labels).items()}
            numbers = repr(self.class_labels).encode()
            drawn["class_labels_sha256"] = hashlib.sha256(numbers).hexdigest()
        return {"drawn": drawn} if drawn else {}

    def of_statistics(self) -> dict:
        """As a file of statistics keeps them, to draw them again."""
        drawn = {"prompts": self.prompts, "class_labels": self.class_labels}
        return {name: list(each) for name, each in drawn.items() if each is not None}

    def line(self) -> str | None:
        """What was drawn, in one line."""
        lines = []
        if self.prompts is not None:
            lines.append(f"prompts: {len(set(self.prompts)):,} captions of the real images")
        if self.class_labels is not None:
            lines.append(f"classes as of the real images: {_shown(self.class_labels)}")
        return "; ".join(lines) or None


def open_with_conditions(
    name_or_folder: str,
    encoder: Encoder,
    count: int,
    *,
    prompts: Sequence[str] | None,
    class_labels: Sequence[int] | None,
    class_map: str | None = None,
    **options,
) -> Dataset:
    """`open_reference`, with the captions or classes that `draw_conditions` needs; says so where
    the real images have none, or other classes than the model.

    Args:
        name_or_folder, count, options: of `open_reference`.
        encoder, prompts, class_labels: of `draw_conditions`.
        class_map: of `liftplace.data.load_dataset`.
    """
    plain = partial(open_reference, name_or_folder, encoder.resolution, count, **options)
    captions = encoder.takes_captions and prompts is None
    labels = encoder.takes_labels and class_labels is None
    if not (captions or labels):
        return plain()
    try:
        dataset = plain(captions=captions, labels=labels, class_map=class_map)
        if labels:
            _check_classes(dataset, encoder)
        return dataset
    except UsageError as error:
        dataset = plain()  # raises whatever else is wrong
        say_not_drawn(encoder, error)
        return dataset


def say_not_drawn(encoder: Encoder, reason: object) -> None:
    """That samples are of the default conditions, and why."""
    if not distributed_state().is_main_process:
        return
    if encoder.takes_captions:
        print(f"samples of the empty prompt, because --prompts is not given and {reason}")
    else:
        print(f"samples of all classes in turn, because --class_labels is not given and {reason}")


def draw_conditions(
    dataset: Dataset,
    encoder: Encoder,
    count: int,
    *,
    prompts: Sequence[str] | None = None,
    class_labels: Sequence[int] | None = None,
) -> DrawnConditions:
    """The captions and classes of the `count` real images that `real_features` takes, in their
    order.

    Args:
        dataset: of real images, with captions and labels where they are to be drawn.
        encoder: of the model, whose numbers the labels are.
        count: of the samples.
        prompts, class_labels: that the user gave; they are not drawn then.
    """
    wants_captions = encoder.takes_captions and prompts is None and dataset.has_captions
    wants_labels = encoder.takes_labels and class_labels is None and dataset.classes is not None
    if not (wants_captions or wants_labels):
        return DrawnConditions()
    items = [dataset.conditions(index) for index in shuffled(len(dataset), count).tolist()]
    return DrawnConditions(
        tuple(item["captions"] for item in items) if wants_captions else None,
        tuple(int(item["class_labels"]) for item in items) if wants_labels else None,
    )


def kept_conditions(
    kept: Mapping[str, Sequence],
    encoder: Encoder,
    count: int,
    where: str,
    *,
    prompts: Sequence[str] | None = None,
    class_labels: Sequence[int] | None = None,
) -> DrawnConditions:
    """`draw_conditions` from a file of statistics, where it has some.

    Args:
        kept: what `DrawnConditions.of_statistics` put there.
        where: the file, as the user named it.
    """
    drawn = {}
    wanted = {"prompts": encoder.takes_captions and prompts is None}
    wanted["class_labels"] = encoder.takes_labels and class_labels is None
    for name in (name for name, wants in wanted.items() if wants):
        if name in kept:
            drawn[name] = tuple(kept[name][:count])
        else:
            say_not_drawn(encoder, f"{where} has none of the real images")
    return DrawnConditions(**drawn)


def _check_classes(dataset: Dataset, encoder: Encoder) -> None:
    """Raises UsageError if the numbers of a dataset's classes are not those of the model's."""
    count, needed = len(dataset.classes), encoder.family.num_classes(encoder.config)
    mapped = getattr(dataset, "has_class_map", False) and count <= needed
    if count != needed and not mapped:
        raise UsageError(
            f"the real images have {count} classes and {encoder.folder} was made for {needed}: "
            "give --class_map FILE, which says the number of each"
        )


def counts(labels: Sequence[int]) -> dict[int, int]:
    """How often each class is there, in ascending order."""
    return dict(sorted(Counter(labels).items()))


def _shown(labels: Sequence[int], most: int = 10) -> str:
    found = [f"{number}: {count:,}" for number, count in counts(labels).items()]
    more = f", and {len(found) - most} more" if len(found) > most else ""
    return ", ".join(found[:most]) + more
