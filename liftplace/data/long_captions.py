"""Captions that are longer than the text encoders of a pipeline read."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from inspect import signature

from diffusers import DiffusionPipeline

# Of diffusers and transformers, at every batch.
ABOUT_LENGTH = ("part of your input was truncated", "Token indices sequence length is longer")


def count_long(pipeline: DiffusionPipeline, captions: Sequence[str]) -> tuple[int, int]:
    """How many captions are cut off, and after how many tokens: those of the text encoder that
    reads most, so that SD3's and Flux's T5 counts, and not their CLIP beside it."""
    tokenizer, limit = max(_readers(pipeline), key=lambda reader: reader[1])
    tokens = tokenizer(list(captions), truncation=False, verbose=False)["input_ids"]
    return sum(len(each) > limit for each in tokens), limit


def _readers(pipeline: DiffusionPipeline) -> Iterator[tuple]:
    most = signature(pipeline.encode_prompt).parameters.get("max_sequence_length")
    for name, tokenizer in pipeline.components.items():
        if name.startswith("tokenizer") and tokenizer is not None:
            limit = tokenizer.model_max_length
            takes_most = most is not None and "T5" in type(tokenizer).__name__
            yield tokenizer, min(limit, most.default) if takes_most else limit


@contextmanager
def quiet_about_length(pipeline: DiffusionPipeline) -> Iterator[None]:
    """Without the warning of each batch with a long caption; other messages stay."""
    names = (type(pipeline).__module__, "transformers.tokenization_utils_base")
    loggers = [logging.getLogger(name) for name in names]
    for logger in loggers:
        logger.addFilter(_is_of_something_else)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(_is_of_something_else)


def _is_of_something_else(record: logging.LogRecord) -> bool:
    return not any(part in record.getMessage() for part in ABOUT_LENGTH)
